"""Anti-collapse statistics over the valid rows of the global batch, all in float32.

`sound` statistics act on u = sqrt(Z) z / |z|: the cosine ignores the norm, so variance of raw vectors can be had by
growing norms alone (the scale hole). sqrt(Z) puts the ideal deviation per channel at 1.

Shapes: N videos, T frames, Z width, V = N * T rows.
"""

import math

import torch
from torch import Tensor

from hvlm.losses.batch import masked, unit

VARIANCE_EPS = 1e-4


def scaled_unit(z_NTZ: Tensor, mask_NT: Tensor) -> Tensor:
    """sqrt(Z) z / |z| in float32, padded rows zero."""
    return math.sqrt(z_NTZ.shape[-1]) * unit(masked(z_NTZ, mask_NT))


def variance_loss(z_NTZ: Tensor, mask_NT: Tensor, gamma: float = 1.0) -> Tensor:
    """mean_d max(0, gamma − sigma_d), sigma_d = sqrt(Var_d(u) + 1e-4) over all valid rows (biased variance).

    Returns:
        scalar; near 0 when every channel varies, gamma when all rows are equal.

    Source: Bardes et al. 2022 (VICReg), eq. 1, on unit vectors.
    """
    u_NTZ = scaled_unit(z_NTZ, mask_NT)
    sigma_Z = (_variance(u_NTZ, mask_NT) + VARIANCE_EPS).sqrt()
    return (gamma - sigma_Z).clamp_min(0.0).mean()


def upstream_variance_loss(h_NTZ: Tensor, mask_NT: Tensor, tau: float = 0.1) -> Tensor:
    """max(0, tau − mean_d sigma_d) of the raw rows: the published hinge, which does not prevent collapse.

    Source: upstream README, L_reg = max(0, tau − std_batch(H)); here over valid rows only, biased.
    """
    sigma_Z = (_variance(masked(h_NTZ, mask_NT), mask_NT) + 1e-12).sqrt()
    return (tau - sigma_Z.mean()).clamp_min(0.0)


def within_video_variance_loss(z_NTZ: Tensor, mask_NT: Tensor, gamma: float = 0.5, min_length: int = 8) -> Tensor:
    """The variance loss with mean and variance per video, averaged over videos of at least `min_length` rows.

    It keeps the rows of one video apart, which localisation needs and which batch variance alone does not ask for.
    """
    u_NTZ = scaled_unit(z_NTZ, mask_NT)
    length_N = mask_NT.sum(1)
    count_N1 = length_N.clamp_min(1)[:, None].float()
    mean_NZ = u_NTZ.sum(1) / count_N1
    centred_NTZ = (u_NTZ - mean_NZ[:, None]) * mask_NT[..., None]
    sigma_NZ = (centred_NTZ.square().sum(1) / count_N1 + VARIANCE_EPS).sqrt()
    used_N = (length_N >= min_length).float()
    per_video_N = (gamma - sigma_NZ).clamp_min(0.0).mean(1)
    return (per_video_N * used_N).sum() / used_N.sum().clamp_min(1.0)


def covariance_loss(z_NTZ: Tensor, mask_NT: Tensor) -> Tensor:
    """(1 / Z) sum of squared off-diagonal covariances of u over valid rows (biased).

    Source: Bardes et al. 2022 (VICReg), eq. 3, on unit vectors.
    """
    u_VZ, count = _centred(scaled_unit(z_NTZ, mask_NT), mask_NT)
    covariance_ZZ = u_VZ.T @ u_VZ / count
    off_diagonal = covariance_ZZ.square().sum() - covariance_ZZ.diagonal().square().sum()
    return off_diagonal / z_NTZ.shape[-1]


def _centred(x_NTZ: Tensor, mask_NT: Tensor) -> tuple[Tensor, Tensor]:
    """Rows minus the mean of valid rows (padded rows zero) as (V, Z), and the number of valid rows, at least 1."""
    count = mask_NT.sum().clamp_min(1).float()
    mean_Z = x_NTZ.sum((0, 1)) / count
    centred_NTZ = (x_NTZ - mean_Z) * mask_NT[..., None]
    return centred_NTZ.flatten(0, 1), count


def _variance(x_NTZ: Tensor, mask_NT: Tensor) -> Tensor:
    centred_VZ, count = _centred(x_NTZ, mask_NT)
    variance_Z: Tensor = torch.sum(centred_VZ.square(), 0) / count
    return variance_Z
