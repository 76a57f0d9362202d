import math

import pytest
import torch

from hvlm.losses.temporal import Reduction, boundary_pair_weights, temporal_loss

COS45 = math.sqrt(0.5)


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    """Video 0: angles 0, 45, 135 degrees (distances 1 - cos 45, 1). Video 1: one pair at 180. Video 2: one row."""
    angles = torch.tensor([[0.0, 45.0, 135.0], [0.0, 180.0, 77.0], [10.0, 99.0, 99.0]]).deg2rad()
    z = torch.stack([angles.cos(), angles.sin()], dim=-1) * torch.tensor([1.0, 3.0, 7.0])[None, :, None]
    return z, torch.tensor([[True, True, True], [True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("pair_mean", ((1 - COS45) + 1 + 2) / 3),
        ("video_mean", (((1 - COS45) + 1) / 2 + 2) / 2),
        ("sum", ((1 - COS45) + 1 + 2) / 2),
    ],
)
def test_values_by_hand(reduction: Reduction, expected: float) -> None:
    z, mask = by_hand()
    torch.testing.assert_close(temporal_loss(z, mask, reduction), torch.tensor(expected))


@pytest.mark.parametrize("reduction", ["pair_mean", "video_mean", "sum"])
def test_padding_does_not_matter(reduction: Reduction) -> None:
    z, mask = by_hand()
    expected = temporal_loss(z, mask, reduction)
    z[~mask] = float("nan")
    z = torch.cat([z, torch.full((3, 4, 2), 1e6)], dim=1)
    mask = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(temporal_loss(z, mask, reduction), expected)


def test_no_pair_is_zero() -> None:
    assert temporal_loss(torch.randn(2, 1, 4), torch.ones(2, 1, dtype=torch.bool)) == 0.0
    assert temporal_loss(torch.randn(2, 3, 4), torch.tensor([[True, False, False]] * 2), "sum") == 0.0


def test_pair_weights_leave_out_the_likely_boundary() -> None:
    z, mask = by_hand()
    weight = boundary_pair_weights(z, mask, quantile=0.5, low_weight=0.0)
    # Video 0 has two pairs: the worse one goes. Video 1 has one pair: half a pair is none.
    assert weight[0].tolist() == [1.0, 0.0, 1.0]
    assert weight[1, 0] == 1.0
    expected = ((1 - COS45) + 2) / 2
    torch.testing.assert_close(temporal_loss(z, mask, "pair_mean", weight), torch.tensor(expected))
    assert torch.equal(boundary_pair_weights(z, mask, 0.0, 0.0), torch.ones(3, 3))
    assert boundary_pair_weights(z[:, :1], mask[:, :1], 0.5, 0.0).tolist() == [[1.0]] * 3


def test_small_weights_keep_the_mean() -> None:
    z, mask = by_hand()
    light = temporal_loss(z, mask, "pair_mean", torch.full((3, 3), 1e-3))
    torch.testing.assert_close(light, temporal_loss(z, mask))
