"""What the losses take: tensors of the global batch (all ranks), with masks. Losses are pure functions of it.

Shapes: N videos of the global batch, T frames, L nodes of a level, Z width of the projection, E joint space.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class LevelNodes(NamedTuple):
    """One pyramid level, base first: projections of the nodes, predictions made from them, True = real."""

    projected_NLZ: Tensor
    predicted_NLZ: Tensor
    mask_NL: Tensor


class GatheredBatch(NamedTuple):
    """The global batch.

    projected_NTZ, mask_NT: rows for the frame losses. pair_weight_NT: optional weight of the pair (t, t + 1), no
    gradient (`boundary_pair_weights`). video_NE, text_NE: unit norm. text_group_N: int64, equal for equal captions, −1
    for a video without text. levels: for the cross-scale loss.
    """

    projected_NTZ: Tensor
    mask_NT: Tensor
    pair_weight_NT: Tensor | None = None
    video_NE: Tensor | None = None
    text_NE: Tensor | None = None
    text_group_N: Tensor | None = None
    levels: tuple[LevelNodes, ...] = ()


def unit(x: Tensor) -> Tensor:
    """Rows of unit norm in float32; zero rows stay zero."""
    return functional.normalize(x.float(), dim=-1)


def masked(x_NTZ: Tensor, mask_NT: Tensor) -> Tensor:
    """`x_NTZ` in float32 with padded rows zero, whatever they held (also NaN)."""
    return torch.where(mask_NT[..., None], x_NTZ.float(), 0.0)


def draw_rows(mask_NT: Tensor, per_video: int, generator: torch.Generator) -> Tensor:
    """Random real rows of each video, with replacement.

    The draw is a share of the video's length, made on the CPU from the number of videos alone: it does not depend on
    the padding, the device or the number of ranks.

    Returns:
        int64 (N, per_video); zeros for a video without rows.
    """
    share_NK = torch.rand(mask_NT.shape[0], per_video, generator=generator, dtype=torch.float64)
    length_N1 = mask_NT.sum(1, keepdim=True)
    row_NK = (share_NK.to(mask_NT.device) * length_N1).long()
    return row_NK.clamp(min=0).minimum((length_N1 - 1).clamp_min(0))


def take_rows(x_NTZ: Tensor, row_NK: Tensor) -> Tensor:
    """Rows `row_NK` of each video: (N, K, Z)."""
    return x_NTZ.gather(1, row_NK[..., None].expand(-1, -1, x_NTZ.shape[-1]))
