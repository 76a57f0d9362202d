"""Positions of feature rows in seconds, so that encoders with different strides share one clock.

Shapes: B local batch, T frames (feature rows), D width.
"""

import math

import torch
from torch import Tensor


def sinusoidal_positions(
    times_BT: Tensor, dim: int, *, min_period_s: float = 1.0, max_period_s: float = 10_000.0
) -> Tensor:
    """Sine and cosine of each row's time at `dim / 2` frequencies, geometric between the two periods.

    A row's code depends on its time alone: the same moment has the same code at a stride of 0.32 s and of 1 s.

    Args:
        times_BT: float, seconds from the start of the video.
        dim: even width of the code.
        min_period_s: period of the fastest pair, seconds. 1 s: the shortest that a 0.5 s stride can still see.
        max_period_s: period of the slowest pair, seconds. 10,000 s is longer than a film.

    Returns:
        float32 (B, T, dim), sines first, then cosines.

    Source: Vaswani et al. 2017, section 3.5, with seconds in place of the index.
    """
    half = dim // 2
    exponent = torch.linspace(0.0, 1.0, half, device=times_BT.device, dtype=torch.float32)
    omega = (2.0 * math.pi / min_period_s) * (min_period_s / max_period_s) ** exponent
    angle_BTF = times_BT.to(torch.float32)[..., None] * omega
    return torch.cat([angle_BTF.sin(), angle_BTF.cos()], dim=-1)
