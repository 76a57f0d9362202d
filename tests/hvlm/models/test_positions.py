import math

import torch

from hvlm.models.positions import sinusoidal_positions


def test_the_same_moment_has_the_same_code_at_every_stride() -> None:
    fine = sinusoidal_positions(torch.arange(0, 40, dtype=torch.float32)[None] * 0.32, 16)
    coarse = sinusoidal_positions(torch.arange(0, 20, dtype=torch.float32)[None] * 0.64, 16)
    torch.testing.assert_close(fine[0, ::2], coarse[0], atol=1e-5, rtol=0)


def test_hand_calculated_code() -> None:
    code = sinusoidal_positions(torch.tensor([[0.25]]), 4, min_period_s=1.0, max_period_s=4.0)
    expected = [1.0, math.sin(math.pi / 8), 0.0, math.cos(math.pi / 8)]
    torch.testing.assert_close(code[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_distant_moments_differ() -> None:
    code = sinusoidal_positions(torch.arange(0, 3600, 1.0)[None], 64)[0]
    distance = torch.cdist(code, code) + 10 * torch.eye(3600)
    assert distance.min() > 1e-3
