"""Cross-scale consistency: a pyramid node must find its own children among nodes of that level in other videos.

Shapes: N videos of the global batch, L nodes of a level, Z width, K sampled parents per video, A = N * K, M candidates
per video, C = N * M.
"""

import itertools

import torch
from torch import Tensor

from hvlm.losses.batch import LevelNodes, draw_rows, take_rows, unit


def cross_scale_loss(
    levels: tuple[LevelNodes, ...],
    generator: torch.Generator,
    *,
    temperature: float = 0.1,
    parents_per_video: int = 4,
    max_pairs: int = 4096,
) -> Tensor:
    """Parent-to-child InfoNCE, averaged over the levels above the base.

    The anchor is the prediction q made from a parent; its positives are its 2 or 3 children, its negatives sampled
    nodes of the children's level in other videos. Children and negatives carry no gradient, so the parent must move,
    and the loss cannot be had by pulling children together. Our definition: the publication has none.

    Args:
        levels: base first, with projections of the nodes and predictions from them.
        generator: on the CPU, in the same state on all ranks.
        temperature: of the softmax.
        parents_per_video: parents drawn per video and level.
        max_pairs: bound of anchors and of candidates per level.

    Returns:
        scalar float32; 0 (with a graph) when there is no level above the base.
    """
    # Every level takes part, so that the predictor has a gradient (of zero) also for a batch of one-row videos.
    total = torch.stack([level.predicted_NLZ.float().sum() for level in levels]).sum() * 0.0
    if len(levels) < 2:
        return total
    for below, above in itertools.pairwise(levels):
        num_videos = above.mask_NL.shape[0]
        each = max(1, min(parents_per_video, max_pairs // max(1, num_videos)))
        total = total + _level_loss(below, above, draw_rows(above.mask_NL, each, generator), generator, temperature)
    return total / (len(levels) - 1)


def _level_loss(
    below: LevelNodes, above: LevelNodes, parent_NK: Tensor, generator: torch.Generator, temperature: float
) -> Tensor:
    """Multi-positive InfoNCE for one pair of levels; positives are averaged outside the logarithm."""
    num_videos, each = parent_NK.shape
    child_NLZ = unit(below.projected_NLZ.detach())
    anchor_NKZ = unit(take_rows(above.predicted_NLZ, parent_NK))
    length_N1 = below.mask_NL.sum(1, keepdim=True)
    # The last parent also has the remainder 2j + 2; a video that is already one node has no parent to learn from.
    last_NK = parent_NK == (length_N1 // 2 - 1)
    slots = []
    for slot in range(3):
        child_NK = 2 * parent_NK + slot
        valid_NK = (child_NK < length_N1) & (length_N1 > 1) & (last_NK if slot == 2 else True)
        child_NKZ = take_rows(child_NLZ, child_NK.clamp(max=below.mask_NL.shape[1] - 1))
        slots.append((valid_NK, (anchor_NKZ * child_NKZ).sum(-1) / temperature))
    valid_NK3 = torch.stack([valid for valid, _ in slots], dim=-1)
    positive_NK3 = torch.stack([logit for _, logit in slots], dim=-1)

    candidate_CZ = take_rows(child_NLZ, draw_rows(below.mask_NL, each, generator)).flatten(0, 1)
    logits_NKC = anchor_NKZ @ candidate_CZ.T / temperature
    video = torch.arange(num_videos, device=parent_NK.device)
    candidate_video_C = video.repeat_interleave(each)
    present_C = below.mask_NL.any(1).repeat_interleave(each)
    other_NC = (video[:, None] != candidate_video_C) & present_C
    negative_NK = logits_NKC.masked_fill(~other_NC[:, None], float("-inf")).logsumexp(-1)
    loss_NK3 = torch.logaddexp(positive_NK3, negative_NK[..., None]) - positive_NK3
    weight_NK3 = valid_NK3.float()
    return (loss_NK3 * weight_NK3).sum() / weight_NK3.sum().clamp_min(1.0)
