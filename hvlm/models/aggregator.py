"""From the vectors of a video's clips (or captions) to one vector: the mean, or a small transformer.

One aggregator serves clips and captions, and there is no projection behind it: single vectors and aggregated ones live
in the same space.

Shapes: V videos, C clips or captions of a video, E width of the joint space, B batch, L tokens (CLS and C), D width,
H heads, K width of a head.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.models.attention import padded

AggregatorKind = Literal["average", "self_attention"]
_MLP_RATIO = 4
_INIT_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorConfig(Config):
    """`average` has no parameter and knows no order. Of `self_attention`: `num_clips` vectors per video, exactly.

    `stochastic_depth` is the rate at which the last layer's branches are left out in training; it rises linearly from 0
    in the first. `positions` false takes the table away: then no order is known (a control of every report).
    """

    kind: AggregatorKind = "self_attention"
    num_clips: int = 16
    num_layers: int = 6
    num_heads: int = 8
    stochastic_depth: float = 0.1
    positions: bool = True

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_layers", "num_heads"):
            value = getattr(self, name)
            require(value >= 1, what=f"aggregator.{name}", got=value, expected="1 or more", do=f"raise {name}")
        require(
            0 <= self.stochastic_depth < 1,
            what="aggregator.stochastic_depth",
            got=self.stochastic_depth,
            expected="0 or more and below 1",
            do="use 0 for off",
        )


class PreNormBlock(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)) with GELU and a hidden width of 4 D; no bias on query, key and value.

    Args:
        d_model: width D; parameters are 12 D^2 + 10 D.
        num_heads: H, divides D.
        drop_rate: share of the samples for which a branch is left out while training (the rest is scaled up).
    """

    def __init__(self, d_model: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        require(
            d_model % num_heads == 0,
            what="num_heads",
            got=num_heads,
            expected=f"a divisor of the width {d_model}",
            do="change one of the two",
        )
        self.num_heads = num_heads
        self.drop_rate = drop_rate
        self.attention_norm = nn.LayerNorm(d_model)
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model)
        self.mlp_norm = nn.LayerNorm(d_model)
        self.mlp_in = nn.Linear(d_model, _MLP_RATIO * d_model)
        self.mlp_out = nn.Linear(_MLP_RATIO * d_model, d_model)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """One layer.

        Args:
            x_BLD: finite, also where it is padding.
            mask_BL: bool, True = real, at least one per row of the batch; a padded token is never a key.

        Returns:
            (B, L, D); padded tokens hold finite values without meaning.
        """
        x_BLD = x_BLD + self._thinned(self._attend(self.attention_norm(x_BLD), mask_BL))
        hidden_BLD: Tensor = self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x_BLD))))
        return x_BLD + self._thinned(hidden_BLD)

    def _attend(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        qkv_BL3HK = self.query_key_value(x_BLD).view(B, L, 3, self.num_heads, D // self.num_heads)
        query_BHLK, key_BHLK, value_BHLK = qkv_BL3HK.permute(2, 0, 3, 1, 4)
        mixed_BHLK = functional.scaled_dot_product_attention(
            query_BHLK, key_BHLK, value_BHLK, attn_mask=mask_BL[:, None, None, :]
        )
        attended: Tensor = self.out(mixed_BHLK.transpose(1, 2).reshape(B, L, D))
        return attended

    def _thinned(self, branch_BLD: Tensor) -> Tensor:
        if self.drop_rate == 0 or not self.training:
            return branch_BLD
        kept_B11 = torch.rand(branch_BLD.shape[0], 1, 1, device=branch_BLD.device) >= self.drop_rate
        return branch_BLD * kept_B11 / (1 - self.drop_rate)


class AverageAggregator(nn.Module):
    """The mean of the real vectors; no order, no parameter."""

    def forward(self, projected_VCE: Tensor, mask_VC: Tensor) -> Tensor:
        """(V, C, E) and bool (V, C) → (V, E); zero for a video without a real vector."""
        count_V1 = mask_VC.sum(1, keepdim=True).clamp_min(1)
        return padded(projected_VCE, mask_VC).sum(1) / count_V1


class SelfAttentionAggregator(nn.Module):
    """CLS and the vectors with learned positions → pre-LN layers → LN of CLS.

    Args:
        config: sizes.
        dim: width E; at 256 and the default sizes 4,738,816 parameters.

    Source: Ashutosh et al. 2023 (HierVL), the self-attention aggregator, with a mask and without unused parameters.
    """

    def __init__(self, config: AggregatorConfig, dim: int) -> None:
        super().__init__()
        self.num_clips = config.num_clips
        self.cls_D = nn.Parameter(torch.empty(dim))
        self.positions_CD = nn.Parameter(torch.empty(config.num_clips, dim)) if config.positions else None
        last = max(1, config.num_layers - 1)
        self.layers = nn.ModuleList(
            PreNormBlock(dim, config.num_heads, config.stochastic_depth * i / last) for i in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        init_transformer(self)

    def forward(self, projected_VCE: Tensor, mask_VC: Tensor) -> Tensor:
        """Aggregate the vectors of each video.

        Args:
            projected_VCE: not normalised, in time order; padding may hold anything.
            mask_VC: bool, True = real.

        Returns:
            (V, E); padded positions do not change it. A video without a real vector gives the same vector as any other
            such video.

        Raises:
            UserError: another number of positions than `num_clips`.
        """
        C = projected_VCE.shape[1]
        require(
            self.num_clips == C,
            what="vectors per video",
            got=C,
            expected=f"aggregator.num_clips={self.num_clips}",
            do="pad to it and mask the padding, or change aggregator.num_clips",
        )
        tokens_VCE = padded(projected_VCE.to(self.cls_D.dtype), mask_VC)
        if self.positions_CD is not None:
            tokens_VCE = tokens_VCE + self.positions_CD
        x_VLE, mask_VL = with_cls(self.cls_D, tokens_VCE, mask_VC)
        for layer in self.layers:
            x_VLE = layer(x_VLE, mask_VL)
        aggregated_VE: Tensor = self.norm(x_VLE[:, 0])
        return aggregated_VE


def with_cls(cls_D: Tensor, tokens_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and mask with CLS, which is always real, in front: (B, 1 + T, D) and (B, 1 + T)."""
    cls_B1D = cls_D.expand(tokens_BTD.shape[0], 1, -1)
    return torch.cat([cls_B1D, tokens_BTD], dim=1), functional.pad(mask_BT, (1, 0), value=True)


def init_transformer(module: nn.Module) -> None:
    """Truncated normal of deviation 0.02 for linear weights, tables and CLS, zero for their biases; in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=_INIT_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for table in module.parameters(recurse=False):
        nn.init.trunc_normal_(table, std=_INIT_STD)


def build_aggregator(config: AggregatorConfig, dim: int) -> AverageAggregator | SelfAttentionAggregator:
    """The aggregator that `config` names, for vectors of width `dim`."""
    return AverageAggregator() if config.kind == "average" else SelfAttentionAggregator(config, dim)
