"""Temporal InfoNCE: a row against its neighbour, with rows of other videos and far rows of its own as negatives.

Shapes: N videos of the global batch, T frames, Z width, K anchors per video, A = N * K anchors, M candidates per video,
C = candidates in all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.losses.batch import draw_rows, masked, take_rows, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoNCEConfig(Config):
    """`window`: largest distance of a positive, rows. `gap`: rows nearer than this are neither positive nor negative.

    Anchors and candidates are capped over the global batch, so the similarity matrix has at most 4096 x 4096 entries
    (64 MiB in float32) whatever the batch and the lengths.
    """

    temperature: float = 0.1
    window: int = 1
    gap: int = 8
    anchors_per_video: int = 8
    candidates_per_video: int = 16
    max_anchors: int = 4096
    max_candidates: int = 4096

    def __post_init__(self) -> None:
        require(
            self.temperature > 0,
            what="infonce.temperature",
            got=self.temperature,
            expected="above 0",
            do="e.g. temperature: 0.1",
        )
        require(
            1 <= self.window < self.gap,
            what="infonce.window",
            got=self.window,
            expected=f"1 or more and below gap={self.gap}",
            do="lower window or raise gap",
        )
        for name in ("anchors_per_video", "candidates_per_video", "max_anchors", "max_candidates"):
            value = getattr(self, name)
            require(value >= 1, what=f"infonce.{name}", got=value, expected="1 or more", do=f"raise {name}")


def temporal_infonce(z_NTZ: Tensor, mask_NT: Tensor, config: InfoNCEConfig, generator: torch.Generator) -> Tensor:
    """Mean over sampled anchors (video, t) of −log p(positive), positive = row t ± 1…window.

    Args:
        z_NTZ: rows of the global batch.
        mask_NT: bool.
        config: temperature, window, gap, sample sizes.
        generator: on the CPU; the same state on all ranks gives the same anchors.

    Returns:
        scalar float32. Videos of one row have no anchor; 0 without any.

    Source: van den Oord et al. 2018, eq. 4, with gap-masked negatives (specification, section 2).
    """
    num_videos = z_NTZ.shape[0]
    unit_NTZ = unit(masked(z_NTZ, mask_NT))
    anchors_each = max(1, min(config.anchors_per_video, config.max_anchors // max(1, num_videos)))
    candidates_each = max(1, min(config.candidates_per_video, config.max_candidates // max(1, num_videos)))
    anchor_NK = draw_rows(mask_NT, anchors_each, generator)
    positive_NK, valid_NK = _positive_rows(anchor_NK, mask_NT.sum(1), config.window, generator)
    candidate_NM = draw_rows(mask_NT, candidates_each, generator)
    # Beyond max_* videos the first anchors and candidates of a random choice of videos are enough.
    anchor_video = torch.randperm(num_videos, generator=generator)[: config.max_anchors].to(z_NTZ.device)
    candidate_video = torch.randperm(num_videos, generator=generator)[: config.max_candidates].to(z_NTZ.device)

    anchor_AZ = take_rows(unit_NTZ, anchor_NK)[anchor_video].flatten(0, 1)
    positive_AZ = take_rows(unit_NTZ, positive_NK)[anchor_video].flatten(0, 1)
    candidate_CZ = take_rows(unit_NTZ, candidate_NM)[candidate_video].flatten(0, 1)
    negative_AC = _negatives(
        (anchor_video, anchor_NK[anchor_video]), (candidate_video, candidate_NM[candidate_video]), config.gap
    ) & mask_NT.any(1)[candidate_video].repeat_interleave(candidates_each)
    positive_A = (anchor_AZ * positive_AZ).sum(-1) / config.temperature
    negative_AC_logits = (anchor_AZ @ candidate_CZ.T / config.temperature).masked_fill(~negative_AC, float("-inf"))
    logits = torch.cat([positive_A[:, None], negative_AC_logits], dim=1)
    loss_A = functional.cross_entropy(logits, logits.new_zeros(logits.shape[0], dtype=torch.long), reduction="none")
    valid_A = valid_NK[anchor_video].flatten().float()
    return (loss_A * valid_A).sum() / valid_A.sum().clamp_min(1.0)


def _positive_rows(
    anchor_NK: Tensor, length_N: Tensor, window: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A row 1…window away on a random side (the other side where that leaves the video), and whether there is one."""
    device = anchor_NK.device
    distance_NK = torch.randint(1, window + 1, anchor_NK.shape, generator=generator).to(device)
    sign_NK = (2 * torch.randint(0, 2, anchor_NK.shape, generator=generator) - 1).to(device)
    distance_NK = distance_NK.minimum((length_N - 1).clamp_min(1)[:, None])
    row_NK = anchor_NK + sign_NK * distance_NK
    last_N1 = (length_N - 1)[:, None]
    outside_NK = (row_NK < 0) | (row_NK > last_N1)
    row_NK = torch.where(outside_NK, anchor_NK - sign_NK * distance_NK, row_NK)
    valid_NK = (row_NK >= 0) & (row_NK <= last_N1)
    return torch.where(valid_NK, row_NK, 0), valid_NK


def _negatives(anchors: tuple[Tensor, Tensor], candidates: tuple[Tensor, Tensor], gap: int) -> Tensor:
    """bool (A, C): candidate of another video, or at least `gap` rows away in the same one."""
    anchor_video, anchor_NK = anchors
    candidate_video, candidate_NM = candidates
    video_A1 = anchor_video.repeat_interleave(anchor_NK.shape[1])[:, None]
    video_1C = candidate_video.repeat_interleave(candidate_NM.shape[1])[None]
    far_AC = (anchor_NK.flatten()[:, None] - candidate_NM.flatten()[None]).abs() >= gap
    return (video_A1 != video_1C) | far_AC
