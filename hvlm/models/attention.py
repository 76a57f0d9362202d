"""Attention over time. One choice today (`full`); another joins by satisfying `TimeAttention` and `build_attention`.

Shapes: B local batch, T frames, D width, H heads, K width of a head.
"""

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import require

AttentionKind = Literal["full"]


class TimeAttention(Protocol):
    """What an attention must offer: a masked map over time, and the number of scores it computes."""

    def __call__(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Attend inside each video; a padded row is never a key."""
        ...

    def entries(self, num_frames: int) -> int:
        """Number of attention scores for one video of `num_frames` rows."""
        ...


class FullAttention(nn.Module):
    """Multi-head attention of every row to every real row of its video: O(T^2) scores.

    Args:
        d_model: width D; parameters are 4 D^2 + 4 D.
        num_heads: H, divides D.
        dropout: probability of dropping a score while training.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Attend inside each video.

        Args:
            x_BTD: float (B, T, D); padded rows must be finite.
            mask_BT: bool (B, T), True = real.

        Returns:
            (B, T, D); padded rows hold finite values without meaning.
        """
        B, T, D = x_BTD.shape
        qkv_BT3HK = self.query_key_value(x_BTD).view(B, T, 3, self.num_heads, D // self.num_heads)
        qkv_3BHTK = qkv_BT3HK.permute(2, 0, 3, 1, 4)
        # A video without a single real row would give softmax over nothing = NaN; let it see its (zeroed) padding.
        keys_BT = mask_BT | ~mask_BT.any(dim=1, keepdim=True)
        mixed_BHTK = functional.scaled_dot_product_attention(
            qkv_3BHTK[0],
            qkv_3BHTK[1],
            qkv_3BHTK[2],
            attn_mask=keys_BT[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended: Tensor = self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
        return attended

    def entries(self, num_frames: int) -> int:
        """H * T^2."""
        return self.num_heads * num_frames * num_frames


def build_attention(kind: AttentionKind, d_model: int, num_heads: int, dropout: float) -> FullAttention:
    """The attention module called `kind`.

    Raises:
        UserError: unknown kind, or `num_heads` does not divide `d_model`.
    """
    require(kind in get_args(AttentionKind), what="encoder.attention", got=kind, expected="full", do="choose full")
    require(
        d_model % num_heads == 0,
        what="encoder.num_heads",
        got=num_heads,
        expected=f"a divisor of d_model={d_model}",
        do="change one of the two",
    )
    return FullAttention(d_model, num_heads, dropout)


def padded(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """`x_BTD` with padded rows set to zero, whatever they held (also NaN and infinity)."""
    return torch.where(mask_BT[..., None], x_BTD, torch.zeros((), dtype=x_BTD.dtype, device=x_BTD.device))
