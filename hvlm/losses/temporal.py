"""Temporal smoothness: mean of 1 − cosine of consecutive rows. By itself it collapses; see `objective`.

Shapes: N videos of the global batch, T frames, Z width.
"""

from typing import Literal

import torch
from torch import Tensor

from hvlm.losses.batch import masked, unit

Reduction = Literal["pair_mean", "video_mean", "sum"]


def temporal_loss(
    z_NTZ: Tensor, mask_NT: Tensor, reduction: Reduction = "pair_mean", pair_weight_NT: Tensor | None = None
) -> Tensor:
    """sum of p (1 − cos(z_t, z_t+1)) over real pairs, divided as `reduction` says.

    Args:
        z_NTZ: float (N, T, Z), outputs of the model (never its inputs: they have no gradient).
        mask_NT: bool, True = real.
        reduction: `pair_mean` over all pairs; `video_mean` the mean over videos with a pair of their mean; `sum` over
            pairs, mean over videos with a pair.
        pair_weight_NT: weight of pair (t, t + 1) at t, no gradient; None = 1. The denominators count weights.

    Returns:
        scalar float32. 0 without any pair.

    Source: upstream README, L_temporal = sum_i (1 − cos(h_i, h_i+1)); see specification, section 2.
    """
    unit_NTZ = unit(masked(z_NTZ, mask_NT))
    pair_NP = (mask_NT[:, :-1] & mask_NT[:, 1:]).float()
    if pair_weight_NT is not None:
        pair_NP = pair_NP * pair_weight_NT[:, :-1].detach().float().masked_fill(~mask_NT[:, :-1], 0.0)
    distance_NP = pair_NP * (1.0 - (unit_NTZ[:, :-1] * unit_NTZ[:, 1:]).sum(-1))
    if reduction == "pair_mean":
        return distance_NP.sum() / _at_least(pair_NP.sum())
    weight_N = pair_NP.sum(1)
    has_pair_N = (weight_N > 0).float()
    per_video_N = distance_NP.sum(1)
    if reduction == "video_mean":
        per_video_N = per_video_N / _at_least(weight_N)
    return (per_video_N * has_pair_N).sum() / has_pair_N.sum().clamp_min(1.0)


def boundary_pair_weights(features_NTD: Tensor, mask_NT: Tensor, quantile: float, low_weight: float) -> Tensor:
    """Weights that spare likely boundaries: pairs whose raw cosine is in the lowest `quantile` of their video.

    Args:
        features_NTD: raw features (N, T, D).
        mask_NT: bool.
        quantile: share of a video's pairs, 0 … 1; 0 gives weight 1 everywhere.
        low_weight: their weight, 0 … 1.

    Returns:
        float32 (N, T), no gradient; the last column is 1 and is not used.
    """
    with torch.no_grad():
        unit_NTD = unit(masked(features_NTD, mask_NT))
        cosine_NP = (unit_NTD[:, :-1] * unit_NTD[:, 1:]).sum(-1)
        pair_NP = mask_NT[:, :-1] & mask_NT[:, 1:]
        rank_NP = cosine_NP.masked_fill(~pair_NP, float("inf")).argsort(dim=1, stable=True).argsort(dim=1)
        low_NP = pair_NP & (rank_NP < (quantile * pair_NP.sum(1, keepdim=True)).floor())
        weight_NP = torch.where(low_NP, low_weight, 1.0)
        return (
            torch.cat([weight_NP, torch.ones_like(weight_NP[:, :1])], dim=1)
            if weight_NP.shape[1]
            else (torch.ones_like(mask_NT, dtype=torch.float32))
        )


def _at_least(weight: Tensor) -> Tensor:
    # Weights below 1 may sum to less than 1: only an empty sum may change the quotient.
    return torch.where(weight > 0, weight, torch.ones_like(weight))
