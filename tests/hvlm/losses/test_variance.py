import math

import torch

from hvlm.losses.temporal import temporal_loss
from hvlm.losses.variance import (
    covariance_loss,
    upstream_variance_loss,
    variance_loss,
    within_video_variance_loss,
)

MASK = torch.arange(20) < torch.tensor([20, 15, 9, 1])[:, None]


def sample(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 20, 8, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand() -> None:
    # Two rows on the two axes: u = sqrt(2) (1, 0) and sqrt(2) (0, 1); variance 0.5 per channel, covariance -0.5.
    z = torch.tensor([[[3.0, 0.0], [0.0, 0.5]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(variance_loss(z, mask), torch.tensor(1 - math.sqrt(0.5001)))
    torch.testing.assert_close(covariance_loss(z, mask), torch.tensor(2 * 0.25 / 2))
    # Raw: channel deviations 1.5 and 0.25, mean 0.875.
    torch.testing.assert_close(upstream_variance_loss(z, mask, tau=1.0), torch.tensor(0.125))
    assert upstream_variance_loss(z, mask, tau=0.1) == 0.0


def test_sound_terms_do_not_see_the_scale() -> None:
    z = sample()
    scaled = z * (1 + 100 * torch.rand(4, 20, 1))
    for loss in (variance_loss, within_video_variance_loss, covariance_loss):
        torch.testing.assert_close(loss(scaled, MASK), loss(z, MASK), atol=1e-5, rtol=1e-5)


def test_padding_does_not_matter() -> None:
    z = sample()
    padded = torch.cat([z, torch.zeros(4, 7, 8)], dim=1)
    mask = torch.cat([MASK, torch.zeros(4, 7, dtype=torch.bool)], dim=1)
    for content in (1e6, float("nan")):
        padded[~mask] = content
        for loss in (variance_loss, within_video_variance_loss, covariance_loss, upstream_variance_loss):
            torch.testing.assert_close(loss(padded, mask), loss(z, MASK), atol=1e-6, rtol=1e-5)


def test_within_video_counts_long_videos_only() -> None:
    z = sample()
    expected = (
        within_video_variance_loss(z[:1], MASK[:1], 2.0) + within_video_variance_loss(z[1:2], MASK[1:2], 2.0)
    ) / 2
    torch.testing.assert_close(within_video_variance_loss(z, MASK, 2.0, min_length=10), expected)
    assert within_video_variance_loss(z, MASK, min_length=21) == 0.0


def test_holes_of_the_literal_loss_are_closed() -> None:
    """Each embedding has L_temp near 0 and satisfies the published hinge; a sound term is above 0."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.ones(8), dim=0)
    mask = torch.ones(6, 20, dtype=torch.bool)
    growing_norm = (1 + 9 * torch.rand(6, 20, 1, generator=generator)) * direction
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])[:, None, None]
    rank_one = signs * 5 * direction.expand(6, 20, 8)
    per_video = torch.randn(6, 1, 8, generator=generator).expand(6, 20, 8) * 5
    holes = {"growing_norm": growing_norm, "rank_one": rank_one, "per_video_constant": per_video}
    found = {}
    for name, h in holes.items():
        assert temporal_loss(h, mask) < 1e-6, name
        assert upstream_variance_loss(h, mask) == 0.0, name
        found[name] = [float(f(h, mask)) for f in (variance_loss, covariance_loss, within_video_variance_loss)]
    assert found["growing_norm"][0] > 0.9
    assert found["rank_one"][0] < 0.01  # the variance hinge alone does not see one direction
    assert found["rank_one"][1] > 1.0
    assert found["per_video_constant"][2] > 0.4


def test_equal_rows_have_finite_gradients() -> None:
    for loss in (variance_loss, within_video_variance_loss, covariance_loss, upstream_variance_loss):
        z = torch.ones(2, 10, 4, requires_grad=True)
        loss(z, torch.ones(2, 10, dtype=torch.bool)).backward()
        assert z.grad is not None
        assert torch.isfinite(z.grad).all()


def test_statistics_are_float32_whatever_comes_in() -> None:
    z = sample().bfloat16()
    for loss in (variance_loss, within_video_variance_loss, covariance_loss, upstream_variance_loss):
        assert loss(z, MASK).dtype == torch.float32
