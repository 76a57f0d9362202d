"""Attention-pooling pyramid: halves the length of each video until one node is left (phase 2 of HierarchicalVLM).

A node pools two neighbours of the level below, weighted by a softmax inside the window; the last node of an odd length
pools three, so no frame is lost: 250 → 125 → 62 → 31 → 15 → 7 → 3 → 1. A softmax over the whole sequence that is
renormalised in a window is exactly the window softmax, so this is the published formula.

Shapes: B local batch, T frames, L nodes of a level, D width, 3 slots of a node's children (2j, 2j+1, 2j+2).
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.models.attention import padded


@dataclass(frozen=True, slots=True, kw_only=True)
class PyramidConfig(Config):
    """`max_reductions` score vectors exist, one per reduction; a longer video uses the last one for what lies above.

    `shared_scores`: one vector for all levels. `refine="ffn"`: x + FFN(LN(x)) on every new node (the published formula
    has none: pooling alone is a convex combination and adds no information).
    """

    max_reductions: int = 16
    shared_scores: bool = False
    refine: Literal["none", "ffn"] = "none"

    def __post_init__(self) -> None:
        require(
            self.max_reductions >= 1,
            what="pyramid.max_reductions",
            got=self.max_reductions,
            expected="1 or more",
            do="keep the default 16 (65,536 frames)",
        )


class PyramidLevel(NamedTuple):
    """One level of a batch.

    nodes_BLD: padded nodes are zero. mask_BL: True = real. weights_BL3: share of children 2j, 2j+1, 2j+2 of the level
    below (sums to 1 on real nodes; None on the base). frame_spans_BL2: int64 [first, end) in rows. spans_s_BL2: [start,
    end) in seconds; both zero on padded nodes.
    """

    nodes_BLD: Tensor
    mask_BL: Tensor
    weights_BL3: Tensor | None
    frame_spans_BL2: Tensor
    spans_s_BL2: Tensor


def level_lengths(num_frames: int) -> list[int]:
    """Lengths of all levels, base first: 250 → [250, 125, 62, 31, 15, 7, 3, 1]."""
    lengths = [num_frames]
    while lengths[-1] > 1:
        lengths.append(lengths[-1] // 2)
    return lengths


def children_mask(length_B: Tensor, num_nodes: int) -> Tensor:
    """Which of the children 2j, 2j+1, 2j+2 node j pools, for videos of `length_B` nodes on the level below.

    Returns:
        bool (B, num_nodes, 3). All False on nodes beyond max(1, length // 2).
    """
    node_L = torch.arange(num_nodes, device=length_B.device)
    slot_3 = torch.arange(3, device=length_B.device)
    child_L3 = 2 * node_L[:, None] + slot_3
    above_B = (length_B // 2).clamp_min(1)
    last_BL = node_L == (above_B - 1)[:, None]
    inside_BL3 = child_L3 < length_B[:, None, None]
    return inside_BL3 & ((slot_3 < 2) | last_BL[..., None]) & (node_L < above_B[:, None])[..., None]


def children(x_BLD: Tensor, num_nodes: int) -> Tensor:
    """The rows 2j, 2j+1, 2j+2 of each node j, zero beyond the end: (B, num_nodes, 3, ...)."""
    missing = 2 * num_nodes + 1 - x_BLD.shape[1]
    if missing > 0:
        x_BLD = torch.cat([x_BLD, x_BLD.new_zeros(x_BLD.shape[0], missing, *x_BLD.shape[2:])], dim=1)
    stop = 2 * num_nodes
    return torch.stack([x_BLD[:, 0:stop:2], x_BLD[:, 1:stop:2], x_BLD[:, 2 : stop + 1 : 2]], dim=2)


def frame_spans(length_B: Tensor, level: int, num_nodes: int) -> Tensor:
    """Rows [first, end) that each node of `level` covers; the last real node extends to the video's end.

    Args:
        length_B: int64 (B,), number of rows of the video.
        level: 0 = the rows themselves.
        num_nodes: padded number of nodes L.

    Returns:
        int64 (B, L, 2), zero on padded nodes.
    """
    node_L = torch.arange(num_nodes, device=length_B.device)
    # The clamp makes a video that reached one node stay at one node while longer ones go on.
    real_B = (length_B >> level).clamp_min(1) * (length_B > 0)
    first_BL = (node_L << level).expand(length_B.shape[0], -1)
    end_BL = torch.where(node_L == (real_B - 1)[:, None], length_B[:, None], first_BL + (1 << level))
    spans_BL2 = torch.stack([first_BL, end_BL], dim=-1)
    return spans_BL2 * (node_L < real_B[:, None])[..., None]


def spans_in_seconds(spans_BL2: Tensor, times_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Time spans of row spans: from the first row's time to the time of the row after the last.

    The row after the video's last one is at the last time + the mean stride; a video of one row has no stride, so its
    span is empty, [t, t).

    Returns:
        float (B, L, 2) in the dtype of `times_BT`; zero on padded nodes.
    """
    length_B = mask_BT.sum(1)
    times_BT = times_BT.masked_fill(~mask_BT, 0.0)
    last_B = times_BT.gather(1, (length_B - 1).clamp_min(0)[:, None]).squeeze(1)
    stride_B = (last_B - times_BT[:, 0]) / (length_B - 1).clamp_min(1)
    edge_BT1 = torch.cat([times_BT, times_BT.new_zeros(times_BT.shape[0], 1)], dim=1)
    edge_BT1 = edge_BT1.scatter(1, length_B[:, None], (last_B + stride_B)[:, None])
    spans_s = edge_BT1.gather(1, spans_BL2.flatten(1)).view(spans_BL2.shape)
    return spans_s * (spans_BL2[..., 1:] > spans_BL2[..., :1])


class AttentionPyramid(nn.Module):
    """Pools a batch of hidden rows level by level; the scores start at zero, which is mean pooling.

    Args:
        config: levels, sharing, refinement.
        d_model: width D.

    Source: h_j = sum_i a_i h_i with a = softmax over the window of w^T h / sqrt(D) (specification, section 3).
    """

    def __init__(self, config: PyramidConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.scores_LD = nn.Parameter(torch.zeros(1 if config.shared_scores else config.max_reductions, d_model))
        self.refine: nn.Module | None = None
        if config.refine == "ffn":
            self.refine = nn.Sequential(
                nn.LayerNorm(d_model), nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model)
            )

    def forward(self, hidden_BTD: Tensor, times_BT: Tensor, mask_BT: Tensor) -> list[PyramidLevel]:
        """All levels, base first; the number of levels follows from the padded length T, so that all ranks agree.

        Args:
            hidden_BTD: (B, T, D); padded rows are ignored.
            times_BT: seconds, (B, T).
            mask_BT: bool (B, T), a prefix of ones.

        Returns:
            1 + floor(log2 T) levels; the last has one node per video: its whole-video embedding.
        """
        length_B = mask_BT.sum(1)
        nodes_BLD = padded(hidden_BTD, mask_BT)
        levels: list[PyramidLevel] = []
        weights_BL3: Tensor | None = None
        for index, num_nodes in enumerate(level_lengths(hidden_BTD.shape[1])):
            if index > 0:
                below_B = (length_B >> (index - 1)).clamp_min(1) * (length_B > 0)
                nodes_BLD, weights_BL3 = self._pool(nodes_BLD, below_B, index - 1, num_nodes)
            spans_BL2 = frame_spans(length_B, index, num_nodes)
            mask_BL = spans_BL2[..., 1] > spans_BL2[..., 0]
            spans_s_BL2 = spans_in_seconds(spans_BL2, times_BT, mask_BT)
            levels.append(PyramidLevel(nodes_BLD, mask_BL, weights_BL3, spans_BL2, spans_s_BL2))
        return levels

    def _pool(self, x_BLD: Tensor, length_B: Tensor, reduction: int, num_nodes: int) -> tuple[Tensor, Tensor]:
        """One reduction: nodes of the level above and the weights of their children."""
        score_D = self.scores_LD[min(reduction, self.scores_LD.shape[0] - 1)]
        # Scores and softmax in float32 also under bf16: a window has only two or three entries to err in.
        score_BL = (x_BLD.float() * score_D.float()).sum(-1) / math.sqrt(x_BLD.shape[-1])
        valid_BL3 = children_mask(length_B, num_nodes)
        score_BL3 = children(score_BL, num_nodes).masked_fill(~valid_BL3, torch.finfo(torch.float32).min)
        weights_BL3 = functional.softmax(score_BL3, dim=-1) * valid_BL3
        pooled_BLD = (children(x_BLD, num_nodes) * weights_BL3[..., None].to(x_BLD.dtype)).sum(2)
        if self.refine is not None:
            # A video that was already one node is a fixed point; others are refined, padded nodes stay zero.
            moved_BL = valid_BL3.any(-1) & (length_B > 1)[:, None]
            pooled_BLD = pooled_BLD + padded(self.refine(pooled_BLD), moved_BL)
        return pooled_BLD, weights_BL3
