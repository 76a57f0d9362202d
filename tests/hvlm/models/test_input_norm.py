import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.input_norm import FeatureStatistics, InputNorm


def test_each_encoder_is_normalised_by_itself() -> None:
    x = torch.cat([torch.randn(2, 3, 4), 1000 * torch.randn(2, 3, 6)], dim=-1)
    unit = InputNorm("l2", (4, 6))(x)
    torch.testing.assert_close(unit[..., :4].norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(unit[..., 4:].norm(dim=-1), torch.ones(2, 3))
    layer = InputNorm("layer", (4, 6))(x)
    torch.testing.assert_close(layer[..., 4:].mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer[..., :4].var(-1, unbiased=False), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert InputNorm("none", (4, 6))(x) is x


def test_zero_rows_stay_zero() -> None:
    zero = torch.zeros(1, 2, 5)
    assert InputNorm("l2", (5,))(zero).abs().max() == 0
    assert InputNorm("layer", (5,))(zero).abs().max() == 0


def test_statistics_over_videos_equal_those_of_all_rows() -> None:
    rows = torch.randn(50, 4) * torch.tensor([1.0, 2.0, 3.0, 0.0]) + 5
    statistics = FeatureStatistics(4)
    statistics.update(rows[:17])
    statistics.update(rows[17:])
    mean, std = statistics.mean_and_std()
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(std[:3], rows.std(0, unbiased=False)[:3], atol=1e-4, rtol=1e-4)
    assert std[3] == 1.0  # a constant column


def test_standard_needs_statistics_which_travel_with_the_state() -> None:
    norm = InputNorm("standard", (3,))
    x = torch.randn(1, 4, 3)
    with pytest.raises(UserError, match="standard without statistics"):
        norm(x)
    norm.set_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 4.0]))
    other = InputNorm("standard", (3,))
    other.load_state_dict(norm.state_dict())
    torch.testing.assert_close(other(x), (x - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([2.0, 2.0, 4.0]))


def test_no_kind_has_parameters() -> None:
    for kind in ("none", "l2", "layer", "standard"):
        assert list(InputNorm(kind, (3,)).parameters()) == []  # type: ignore[arg-type]
