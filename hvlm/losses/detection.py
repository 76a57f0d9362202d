"""What a localisation head learns: which nodes find which segment, and how wrong their classes and offsets are.

Shapes: B videos, P places of a `NodeGrid`, S segments of a video, C classes, N nodes that find a segment.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hvlm.models.localisation_head import LocalisationHeadConfig, NodeGrid, encode_offsets

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss, as published


class TrueSegments(NamedTuple):
    """The segments of one video: [start, end) in seconds and class numbers."""

    span_S2: Tensor
    label_S: Tensor


class Targets(NamedTuple):
    """What each place should say. found_BP: bool, whether it finds a segment; label_BPC: float, 0 or 1; offset_BP2: in
    units, below 0 where the segment does not reach the node's moment; zero where nothing is found."""

    found_BP: Tensor
    label_BPC: Tensor
    offset_BP2: Tensor


def assign_segments(
    grid: NodeGrid, truth: Sequence[TrueSegments], num_classes: int, config: LocalisationHeadConfig
) -> Targets:
    """Say which nodes find which segment.

    Every segment belongs to one level, by its length; there the nodes near its middle find it, or where it is shorter
    than a node the nearest one. A node that could find several takes the shortest one, the first on a tie; segments of
    one span share their nodes.

    Args:
        grid: the nodes. truth: of each video.
        num_classes: C.
        config: of the head.

    Source: ActionFormer, section 3.4; FCOS (Tian et al. 2019) for the shortest.
    """
    found = torch.zeros_like(grid.mask_BP)
    label_BPC = grid.centre_BP.new_zeros(*grid.mask_BP.shape, num_classes)
    span_BP2 = torch.stack([grid.centre_BP, grid.centre_BP], dim=-1)
    for video, (span_S2, label_S) in enumerate(truth):
        if len(span_S2) == 0:
            continue
        finds_PS = _nodes_of(grid, video, span_S2, config)
        length_S = span_S2[:, 1] - span_S2[:, 0]
        shortest_P = length_S.masked_fill(~finds_PS, torch.inf).argmin(1)
        same_PS = finds_PS & (span_S2 == span_S2[shortest_P][:, None]).all(-1)
        found[video] = finds_PS.any(1)
        label_BPC[video] = (same_PS.float() @ functional.one_hot(label_S, num_classes).float()).clamp_max(1)
        span_BP2[video, found[video]] = span_S2[shortest_P][found[video]]
    return Targets(found, label_BPC, encode_offsets(span_BP2, grid))


def _nodes_of(grid: NodeGrid, video: int, span_S2: Tensor, config: LocalisationHeadConfig) -> Tensor:
    """(P, S): which nodes may find which segment."""
    mask_P, centre_P, unit_P = grid.mask_BP[video], grid.centre_BP[video], grid.unit_BP[video]
    length_S, middle_S = span_S2[:, 1] - span_S2[:, 0], span_S2.mean(1)
    nodes_S = length_S / (config.nodes_per_segment * unit_P[0])
    top = grid.level_P[mask_P].max() if mask_P.any() else grid.level_P[0]
    level_S = nodes_S.clamp_min(1).log2().floor().long().minimum(top)
    fits_PS = mask_P[:, None] & (grid.level_P[:, None] == level_S)
    distance_PS = (centre_P[:, None] - middle_S).abs()
    reach_PS = torch.minimum(length_S / 2, config.centre_radius * unit_P[:, None])
    finds_PS = fits_PS & (distance_PS <= reach_PS)
    nearest_S = distance_PS.masked_fill(~fits_PS, torch.inf).argmin(0)
    lost_S = ~finds_PS.any(0) & fits_PS.any(0)
    finds_PS[nearest_S[lost_S], lost_S] = True
    return finds_PS


def localisation_losses(logits_BPC: Tensor, offset_BP2: Tensor, targets: Targets, mask_BP: Tensor) -> dict[str, Tensor]:
    """Return `classes` (focal loss of all nodes) and `offsets` (DIoU loss of those that find a segment), both per node
    that finds one, and their sum `total`.

    Args:
        logits_BPC, offset_BP2: of the head. targets: of `assign_segments`. mask_BP: the grid's.
    """
    count = targets.found_BP.sum().clamp_min(1)
    classes = focal_loss(logits_BPC[mask_BP], targets.label_BPC[mask_BP]).sum() / count
    offsets = diou_loss(offset_BP2[targets.found_BP], targets.offset_BP2[targets.found_BP]).sum() / count
    return {"classes": classes, "offsets": offsets, "total": classes + offsets}


def focal_loss(logits_NC: Tensor, target_NC: Tensor) -> Tensor:
    """Sigmoid cross-entropy (N, C) that counts little where the answer is clear and right.

    Source: Lin et al. 2017 (RetinaNet), eq. 5, alpha 0.25 and gamma 2.
    """
    entropy_NC = functional.binary_cross_entropy_with_logits(logits_NC, target_NC, reduction="none")
    right_NC = torch.exp(-entropy_NC)
    weight_NC = _ALPHA * target_NC + (1 - _ALPHA) * (1 - target_NC)
    return weight_NC * (1 - right_NC) ** _GAMMA * entropy_NC


def diou_loss(offset_N2: Tensor, target_N2: Tensor) -> Tensor:
    """1 − IoU + (distance of the middles / length that covers both)², (N,), of spans around one moment.

    Args:
        offset_N2: how far each span reaches back and forth, at least 0.
        target_N2: the same of the truth; their sum above 0.

    Source: Zheng et al. 2020 (Distance-IoU), eq. 7, in one dimension.
    """
    shared_N = torch.minimum(offset_N2, target_N2).sum(1).clamp_min(0)
    union_N = offset_N2.sum(1) + target_N2.sum(1) - shared_N
    cover_N = torch.maximum(offset_N2, target_N2).sum(1)
    moved_N = (offset_N2[:, 1] - offset_N2[:, 0] - target_N2[:, 1] + target_N2[:, 0]) / 2
    tiny = torch.finfo(offset_N2.dtype).tiny
    return 1 - shared_N / union_N.clamp_min(tiny) + (moved_N / cover_N.clamp_min(tiny)) ** 2
