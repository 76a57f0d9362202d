"""Localisation head: class scores, start and end offsets for every node of every level of a pyramid, without anchors.

Each node stands for a moment, the middle of its time span, and a unit, the length of a node of its level. It says
which classes go on around that moment, and how many units before and after it they start and end.

Shapes: B videos, T rows, L nodes of a level, P places (the nodes of all levels side by side), D width of the nodes,
H width inside, C classes.
Source: Zhang et al. 2022 (ActionFormer, arXiv 2202.07925), section 3.4, on nodes that are pooled and not learnt for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.models.attention import padded
from hvlm.models.pyramid import PyramidLevel

_PRIOR = 0.01  # of a class at a node before training: nearly all nodes are background (RetinaNet)
_MAX_LEVELS = 17  # 65,536 rows; what lies above shares the last one's scale


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisationHeadConfig(Config):
    """Two towers of `num_layers` convolutions over three neighbours, `hidden` wide: one for classes, one for offsets.

    A segment belongs to the level where it is `nodes_per_segment` to twice as many nodes long (the rows take what is
    shorter, the top what is longer); there the nodes whose moment is in it and at most `centre_radius` units from its
    middle find it.
    """

    hidden: int = 64
    num_layers: int = 2
    dropout: float = 0.1
    nodes_per_segment: float = 4.0
    centre_radius: float = 1.5

    def __post_init__(self) -> None:
        for name in ("hidden", "num_layers"):
            value = getattr(self, name)
            require(value >= 1, what=f"head.{name}", got=value, expected="1 or more", do=f"raise {name}")
        for name in ("nodes_per_segment", "centre_radius"):
            value = getattr(self, name)
            require(value > 0, what=f"head.{name}", got=value, expected="above 0", do=f"raise {name}")
        require(0 <= self.dropout < 1, what="head.dropout", got=self.dropout, expected="0 <= p < 1", do="e.g. 0.1")


class NodeGrid(NamedTuple):
    """The nodes of all levels side by side, an empty place after each level: one convolution serves all levels, and
    none looks into another.

    nodes_BPD: zero where there is no node. mask_BP: True = a node. level_P: the level of each place. centre_BP: the
    node's moment in seconds. unit_BP: length of a node of the level in seconds, above 0 everywhere.
    """

    nodes_BPD: Tensor
    mask_BP: Tensor
    level_P: Tensor
    centre_BP: Tensor
    unit_BP: Tensor


def node_grid(levels: Sequence[PyramidLevel], cell_BT2: Tensor, mask_BT: Tensor) -> NodeGrid:
    """The places of a batch.

    Args:
        levels: of a pyramid, base first.
        cell_BT2: [start, end) in seconds that each row stands for, in order; anything on padding.
        mask_BT: bool, True = real.

    Returns:
        places of what lies above a video's last level, and of nodes over rows whose cells do not touch (parts of the
        video were left out), are empty.
    """
    length_B = mask_BT.sum(1)
    cell_BT2 = padded(cell_BT2, mask_BT)
    row_s_B = (cell_BT2[..., 1] - cell_BT2[..., 0]).sum(1) / length_B.clamp_min(1)
    row_s_B = torch.where(row_s_B > 0, row_s_B, torch.ones_like(row_s_B))
    part_BT = functional.pad((cell_BT2[:, 1:, 0] > cell_BT2[:, :-1, 1]).long(), (1, 0)).cumsum(1)
    masks, places, centres, units = [], [], [], []
    for index, level in enumerate(levels):
        first_BL, last_BL = level.frame_spans_BL2[..., 0], (level.frame_spans_BL2[..., 1] - 1).clamp_min(0)
        in_one_part_BL = part_BT.gather(1, first_BL) == part_BT.gather(1, last_BL)
        mask_BL = level.mask_BL & in_one_part_BL & ((length_B >> index) > 0)[:, None]
        centre_BL = (cell_BT2[..., 0].gather(1, first_BL) + cell_BT2[..., 1].gather(1, last_BL)) / 2
        masks.append(functional.pad(mask_BL, (0, 1)))
        centres.append(functional.pad(centre_BL, (0, 1)))
        units.append((row_s_B * 2**index)[:, None].expand(-1, mask_BL.shape[1] + 1))
        places.append(functional.pad(level.nodes_BLD, (0, 0, 0, 1)))
    mask_BP = torch.cat(masks, 1)
    return NodeGrid(
        nodes_BPD=padded(torch.cat(places, 1), mask_BP),
        mask_BP=mask_BP,
        level_P=torch.cat([torch.full_like(mask[0], i, dtype=torch.int64) for i, mask in enumerate(masks)]),
        centre_BP=torch.cat(centres, 1),
        unit_BP=torch.cat(units, 1),
    )


def encode_offsets(span_BP2: Tensor, grid: NodeGrid) -> Tensor:
    """Spans in seconds → how many units before and after each place's moment they start and end."""
    offset_BP2 = torch.stack([grid.centre_BP - span_BP2[..., 0], span_BP2[..., 1] - grid.centre_BP], dim=-1)
    return offset_BP2 / grid.unit_BP[..., None]


def decode_offsets(offset_BP2: Tensor, grid: NodeGrid) -> Tensor:
    """The inverse of `encode_offsets`: spans in seconds."""
    reach_BP2 = offset_BP2 * grid.unit_BP[..., None]
    return torch.stack([grid.centre_BP - reach_BP2[..., 0], grid.centre_BP + reach_BP2[..., 1]], dim=-1)


class LocalisationHead(nn.Module):
    """See the module's docstring; all levels share the towers, and each has a scale for its offsets.

    Args:
        d_in: width D of the nodes.
        num_classes: C.
        config: sizes.
    """

    def __init__(self, d_in: int, num_classes: int, config: LocalisationHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.classify = _Tower(d_in, num_classes, config)
        self.measure = _Tower(d_in, 2, config)
        self.scale_L = nn.Parameter(torch.ones(_MAX_LEVELS))
        nn.init.constant_(self.classify.last.bias, math.log(_PRIOR / (1 - _PRIOR)))  # type: ignore[arg-type]
        # An offset begins in the middle of those of its level, half of nodes_per_segment to all of it.
        nn.init.constant_(self.measure.last.bias, 0.75 * config.nodes_per_segment)  # type: ignore[arg-type]

    def forward(self, grid: NodeGrid) -> tuple[Tensor, Tensor]:
        """Return logits (B, P, C) and offsets (B, P, 2), at least 0, in units; zero where there is no node."""
        logits_BPC = self.classify(grid.nodes_BPD, grid.mask_BP)
        scale_P = self.scale_L[grid.level_P.clamp_max(_MAX_LEVELS - 1)]
        offset_BP2 = functional.softplus(self.measure(grid.nodes_BPD, grid.mask_BP) * scale_P[:, None])
        return padded(logits_BPC, grid.mask_BP), padded(offset_BP2, grid.mask_BP)


class _Tower(nn.Module):
    """(Conv over three places → LayerNorm → ReLU → Dropout) × num_layers → Conv. An empty place is zero everywhere."""

    def __init__(self, d_in: int, d_out: int, config: LocalisationHeadConfig) -> None:
        super().__init__()
        widths = [d_in, *[config.hidden] * config.num_layers]
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Conv1d(config.hidden, d_out, 3, padding=1)

    def forward(self, x_BPD: Tensor, mask_BP: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            moved_BPH = convolution(x_BPD.transpose(1, 2)).transpose(1, 2)
            x_BPD = padded(self.dropout(functional.relu(norm(moved_BPH))), mask_BP)
        out: Tensor = self.last(x_BPD.transpose(1, 2)).transpose(1, 2)
        return out
