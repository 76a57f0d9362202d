"""Attention over time: `full` O(T^2), `windowed` with global tokens O(T), `linear` O(T); all with the same parameters.

A choice is a module that satisfies `TimeAttention`; another one joins by that and a line in `build_attention`.
Shapes: B local batch, T frames, G global tokens, S rows of a sequence (G + T), D width, H heads, K width of a head,
N blocks of a sequence, W frames that a row sees to each side, Q rows of a block, V keys that a block sees (G + 3 Q).
"""

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import require

AttentionKind = Literal["full", "windowed", "linear"]


class TimeAttention(Protocol):
    """What an attention must offer: a masked map over time, and the number of scores it computes."""

    def __call__(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Attend inside each video; a padded row is never a key."""
        ...

    def entries(self, num_frames: int) -> int:
        """Number of attention scores that are computed for one video of `num_frames` rows."""
        ...


class HeadProjections(nn.Module):
    """Queries, keys, values and output of multi-head attention: the 4 D^2 + 4 D parameters that every choice has.

    Args:
        d_model: width D.
        num_heads: H, divides D.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def split(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, S, K)."""
        B, S, D = x_BSD.shape
        qkv_BS3HK = self.query_key_value(x_BSD).view(B, S, 3, self.num_heads, D // self.num_heads)
        q_BHSK, k_BHSK, v_BHSK = qkv_BS3HK.permute(2, 0, 3, 1, 4).unbind(0)
        return q_BHSK, k_BHSK, v_BHSK

    def merge(self, mixed_BHSK: Tensor) -> Tensor:
        """The heads' results side by side through the output layer: (B, S, D)."""
        merged: Tensor = self.out(mixed_BHSK.transpose(1, 2).flatten(2))
        return merged


class FullAttention(HeadProjections):
    """Multi-head attention of every row to every real row of its video: O(T^2) scores.

    Args:
        d_model: width D.
        num_heads: H, divides D.
        dropout: probability of dropping a score while training.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__(d_model, num_heads)
        self.dropout = dropout

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Attend inside each video.

        Args:
            x_BTD: float (B, T, D); padded rows must be finite.
            mask_BT: bool (B, T), True = real.

        Returns:
            (B, T, D); padded rows hold finite values without meaning.
        """
        q_BHTK, k_BHTK, v_BHTK = self.split(x_BTD)
        # A video without a single real row would give softmax over nothing = NaN; let it see its (zeroed) padding.
        keys_BT = mask_BT | ~mask_BT.any(dim=1, keepdim=True)
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            functional.scaled_dot_product_attention(
                q_BHTK, k_BHTK, v_BHTK, attn_mask=keys_BT[:, None, None, :], dropout_p=dropout
            )
        )

    def entries(self, num_frames: int) -> int:
        """H * T^2."""
        return self.num_heads * num_frames * num_frames


class WindowedAttention(HeadProjections):
    """Attention of each frame to the frames at most `window` away and to the global tokens: O(T) scores and memory.

    The first `num_global` rows of the sequence are the global tokens: they see every real row and every frame sees
    them, so that what happens far away can still be known. Frames are cut into blocks of W; a block sees itself and W
    frames on either side, and what lies inside the block's keys but further than W from a row is masked.

    Args:
        d_model: width D.
        num_heads: H, divides D.
        dropout: probability of dropping a score while training.
        window: W >= 1, frames to each side. With W >= T - 1 and no global token the result is that of `FullAttention`.
        num_global: G >= 0, leading rows that are global tokens.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float, *, window: int, num_global: int) -> None:
        super().__init__(d_model, num_heads)
        self.dropout = dropout
        self.window = window
        self.num_global = num_global

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Attend inside each video.

        Args:
            x_BSD: float (B, G + T, D), global tokens first; padded rows must be finite.
            mask_BS: bool (B, G + T), True = real; global tokens always are.

        Returns:
            (B, G + T, D); padded rows hold finite values without meaning.
        """
        q_BHSK, k_BHSK, v_BHSK = self.split(x_BSD)
        mixed_BHTK = self._frames(q_BHSK, k_BHSK, v_BHSK, mask_BS)
        if self.num_global == 0:
            return self.merge(mixed_BHTK)
        global_BHGK = functional.scaled_dot_product_attention(
            q_BHSK[:, :, : self.num_global],
            k_BHSK,
            v_BHSK,
            attn_mask=mask_BS[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.merge(torch.cat([global_BHGK, mixed_BHTK], dim=2))

    def _frames(self, q_BHSK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask_BS: Tensor) -> Tensor:
        """What each frame takes from its window and the global tokens: (B, H, T, K)."""
        B, H, S, K = q_BHSK.shape
        T = S - self.num_global
        block, num_blocks = self._blocks(T)
        q_BHTK = functional.pad(q_BHSK[:, :, self.num_global :], (0, 0, 0, num_blocks * block - T))
        q_XHQK = q_BHTK.view(B, H, num_blocks, block, K).transpose(1, 2).flatten(0, 1)
        visible_BNQV = self._visible(mask_BS, block, num_blocks)
        mixed_XHQK = functional.scaled_dot_product_attention(
            q_XHQK,
            self._keys_of_blocks(k_BHSK, block, num_blocks),
            self._keys_of_blocks(v_BHSK, block, num_blocks),
            attn_mask=visible_BNQV.flatten(0, 1)[:, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return mixed_XHQK.view(B, num_blocks, H, block, K).transpose(1, 2).flatten(2, 3)[:, :, :T]

    def _blocks(self, num_frames: int) -> tuple[int, int]:
        """Frames per block (also what a block sees to each side) and number of blocks."""
        block = max(1, min(self.window, num_frames))
        return block, -(-num_frames // block)

    def _keys_of_blocks(self, k_BHSK: Tensor, block: int, num_blocks: int) -> Tensor:
        """The global tokens and the frames that each block sees: (B N, H, V, K)."""
        frames_BHTK = k_BHSK[:, :, self.num_global :]
        behind = (num_blocks + 1) * block - frames_BHTK.shape[2]
        near_BHNKV = functional.pad(frames_BHTK, (0, 0, block, behind)).unfold(2, 3 * block, block)
        near_BNHVK = near_BHNKV.permute(0, 2, 1, 4, 3)
        global_BNHGK = k_BHSK[:, None, :, : self.num_global].expand(-1, num_blocks, -1, -1, -1)
        return torch.cat([global_BNHGK, near_BNHVK], dim=3).flatten(0, 1)

    def _visible(self, mask_BS: Tensor, block: int, num_blocks: int) -> Tensor:
        """Which keys of its block each row sees: bool (B, N, Q, V)."""
        frames_BT = mask_BS[:, self.num_global :]
        behind = (num_blocks + 1) * block - frames_BT.shape[1]
        real_BNV = functional.pad(frames_BT, (block, behind)).unfold(1, 3 * block, block)
        row_Q1 = torch.arange(block, device=mask_BS.device)[:, None]
        offset_QV = torch.arange(-block, 2 * block, device=mask_BS.device) - row_Q1
        # A padded row sees itself, so that no softmax runs over nothing; no real row ever sees a padded one.
        near_BNQV = (real_BNV[:, :, None, :] & (offset_QV.abs() <= self.window)) | (offset_QV == 0)
        return functional.pad(near_BNQV, (self.num_global, 0), value=True)

    def entries(self, num_frames: int) -> int:
        """H * (N Q (G + 3 Q) for the frames + G (G + T) for the global tokens), with N Q = T up to a whole block.

        Two thirds of a block's scores lie inside the window; the others are computed and masked, so they count.
        """
        block, num_blocks = self._blocks(num_frames)
        of_frames = num_blocks * block * (self.num_global + 3 * block)
        return self.num_heads * (of_frames + self.num_global * (self.num_global + num_frames))


class LinearAttention(HeadProjections):
    """Attention with the kernel phi(q) . phi(k), phi(x) = elu(x / K^(1/4)) + 1, in place of exp(q . k / sqrt(K)).

    Sums over the keys are made once per head, so no row meets another: O(T) products and memory. There is no score to
    drop, so dropout acts in the encoder layer alone.

    Args:
        d_model: width D.
        num_heads: H, divides D.

    Source: Katharopoulos et al., arXiv 2006.16236, equations 5 and 7; the scale K^(1/4) on both sides is the
        1 / sqrt(K) of softmax attention.
    """

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Attend inside each video.

        Args:
            x_BTD: float (B, T, D); padded rows must be finite.
            mask_BT: bool (B, T), True = real.

        Returns:
            (B, T, D); padded rows hold finite values without meaning.
        """
        q_BHTK, k_BHTK, v_BHTK = self.split(x_BTD)
        # The mask is on the keys, so it acts on the sum of values and on the normaliser alike.
        seen_BHTK = _feature_map(k_BHTK) * mask_BT[:, None, :, None]
        asked_BHTK = _feature_map(q_BHTK)
        # Sums over up to 16,384 rows stay in float32 under bf16.
        with torch.autocast(x_BTD.device.type, enabled=False):
            state_BHKK = seen_BHTK.transpose(2, 3) @ v_BHTK.float()
            weight_BHT1 = asked_BHTK @ seen_BHTK.sum(dim=2).unsqueeze(-1)
            # phi underflows to 0 far below zero, and a video without real rows has no weight at all: 0, not NaN.
            mixed_BHTK = (asked_BHTK @ state_BHKK) / weight_BHT1.clamp_min(1e-6)
        return self.merge(mixed_BHTK.to(v_BHTK.dtype))

    def entries(self, num_frames: int) -> int:
        """H * T * K: in each head a row meets K sums over all keys, where elsewhere it meets the keys themselves."""
        return num_frames * self.out.in_features


def _feature_map(x_BHTK: Tensor) -> Tensor:
    return functional.elu(x_BHTK.float() / x_BHTK.shape[-1] ** 0.25) + 1.0


def build_attention(
    kind: AttentionKind, d_model: int, num_heads: int, dropout: float, *, window: int = 1, num_global: int = 0
) -> FullAttention | WindowedAttention | LinearAttention:
    """The attention module called `kind`; `window` and `num_global` are for `windowed` alone.

    Raises:
        UserError: unknown kind, or `num_heads` does not divide `d_model`.
    """
    kinds = get_args(AttentionKind)
    require(kind in kinds, what="encoder.attention", got=kind, expected=f"one of {', '.join(kinds)}", do="choose one")
    require(
        d_model % num_heads == 0,
        what="encoder.num_heads",
        got=num_heads,
        expected=f"a divisor of d_model={d_model}",
        do="change one of the two",
    )
    if kind == "windowed":
        return WindowedAttention(d_model, num_heads, dropout, window=window, num_global=num_global)
    if kind == "linear":
        return LinearAttention(d_model, num_heads)
    return FullAttention(d_model, num_heads, dropout)


def padded(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """`x_BTD` with padded rows set to zero, whatever they held (also NaN and infinity)."""
    return torch.where(mask_BT[..., None], x_BTD, torch.zeros((), dtype=x_BTD.dtype, device=x_BTD.device))
