import math

import pytest
import torch

from hvlm.errors import UserError
from hvlm.losses.monitors import AlarmConfig, Alarms, collapse_monitors

MASK = torch.arange(30) < torch.tensor([30, 21, 9])[:, None]


def sample() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 1, 6, generator=g) + torch.randn(3, 30, 6, generator=g)


def test_equals_the_definitions_with_loops() -> None:
    rows = sample()
    rows[~MASK] = float("nan")
    got = collapse_monitors(rows, MASK, gap=8, prefix="hidden/")
    unit = [torch.nn.functional.normalize(rows[n, : int(MASK[n].sum())].double(), dim=-1) for n in range(3)]
    everything = torch.cat(unit)
    near = [float(u[t] @ u[t + 1]) for u in unit for t in range(len(u) - 1)]
    same = [float(u[i] @ u[j]) for u in unit for i in range(len(u)) for j in range(len(u)) if abs(i - j) >= 8]
    cross = [float(x) for a in range(3) for b in range(3) if a != b for x in (unit[a] @ unit[b].T).flatten()]
    singular = torch.linalg.svdvals(everything - everything.mean(0))
    share = singular**2 / (singular**2).sum()
    expected = {
        "hidden/temporal_consistency": sum(near) / len(near),
        "hidden/unit_std": math.sqrt(6) * float(everything.std(0, unbiased=False).mean()),
        "hidden/within_video_unit_std": math.sqrt(6) * sum(float(u.std(0, unbiased=False).mean()) for u in unit) / 3,
        "hidden/effective_rank": float((-(share * share.log()).sum()).exp()),
        "hidden/cosine_same_video": sum(same) / len(same),
        "hidden/cosine_cross_video": sum(cross) / len(cross),
        "hidden/random_pair_cosine": (sum(same) + sum(cross)) / (len(same) + len(cross)),
    }
    distant = 0.5 * (expected["hidden/cosine_same_video"] + expected["hidden/cosine_cross_video"])
    expected["hidden/contrast_gap"] = expected["hidden/temporal_consistency"] - distant
    assert got == pytest.approx(expected, abs=1e-6)


def test_collapsed_and_one_dimensional_rows_are_seen() -> None:
    total = collapse_monitors(torch.ones(3, 30, 6), MASK)
    assert (total["temporal_consistency"], total["unit_std"]) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert (total["random_pair_cosine"], total["contrast_gap"]) == pytest.approx((1.0, 0.0), abs=1e-6)
    line = torch.randn(3, 30, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(6)
    assert collapse_monitors(line, MASK)["effective_rank"] == pytest.approx(1.0)


def test_nan_rows_are_reported_and_no_pair_is_nan() -> None:
    rows = sample()
    rows[0, 0, 0] = float("nan")
    assert math.isnan(collapse_monitors(rows, MASK)["effective_rank"])
    single = collapse_monitors(sample()[:, :1], MASK[:, :1])
    assert math.isnan(single["temporal_consistency"])
    assert math.isnan(single["cosine_same_video"])
    assert not math.isnan(single["cosine_cross_video"])
    alone = collapse_monitors(sample()[:1], MASK[:1])
    assert math.isnan(alone["cosine_cross_video"])
    assert alone["contrast_gap"] == pytest.approx(alone["temporal_consistency"] - alone["cosine_same_video"])


HEALTHY = {"unit_std": 0.9, "random_pair_cosine": 0.05, "effective_rank": 20.0}


@pytest.mark.parametrize(("name", "bad"), [("unit_std", 0.09), ("random_pair_cosine", 0.96), ("effective_rank", 1.9)])
def test_alarm_after_n_evaluations_in_a_row_once_per_episode(name: str, bad: float) -> None:
    alarms = Alarms(AlarmConfig(evaluations=3))
    broken = HEALTHY | {name: bad}
    history = [broken, broken, HEALTHY, broken, broken, broken, broken, HEALTHY, broken, broken, broken]
    fired = [[a.name for a in alarms.observe_evaluation(step, m)] for step, m in enumerate(history)]
    assert [step for step, names in enumerate(fired) if names] == [5, 10]
    assert fired[5] == [name]


def test_nan_monitors_count_as_broken() -> None:
    alarms = Alarms(AlarmConfig(evaluations=1))
    assert [a.name for a in alarms.observe_evaluation(0, dict.fromkeys(HEALTHY, math.nan))] == list(HEALTHY)


def test_no_random_pair_is_no_broken_value() -> None:
    short = collapse_monitors(sample()[:1, :6], MASK[:1, :6])  # one video of fewer rows than the gap
    assert math.isnan(short["random_pair_cosine"])
    alarms = Alarms(AlarmConfig(evaluations=1, min_unit_std=0.0, min_effective_rank=1.0))
    assert alarms.observe_evaluation(0, short) == []


def test_zero_gradient_and_non_finite_loss() -> None:
    alarms = Alarms(AlarmConfig(zero_gradient_steps=4))
    fired = [alarms.observe_step(step, 0.15, 0.0) for step in range(6)]
    assert [bool(f) for f in fired] == [False, False, False, True, False, False]
    assert "zero_gradient at step 3" in fired[3][0].message
    assert alarms.observe_step(6, 0.15, 1e-9) == []
    assert [a.name for a in alarms.observe_step(7, math.inf, 1.0)] == ["non_finite_loss"]


def test_counters_travel_with_the_checkpoint() -> None:
    first, second = Alarms(AlarmConfig(zero_gradient_steps=2)), Alarms(AlarmConfig(zero_gradient_steps=2))
    first.observe_step(0, 0.1, 0.0)
    second.load_state_dict(first.state_dict())
    assert [a.name for a in second.observe_step(1, 0.1, 0.0)] == ["zero_gradient"]


def test_patience_of_zero_is_refused() -> None:
    with pytest.raises(UserError, match="evaluations"):
        AlarmConfig(evaluations=0)


@pytest.mark.parametrize(
    "values", [{"min_unit_std": -1.0}, {"max_random_pair_cosine": 2.0}, {"min_effective_rank": -0.5}]
)
def test_limits_that_no_value_can_break_or_keep_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"alarms\.{next(iter(values))}"):
        AlarmConfig(**values)
