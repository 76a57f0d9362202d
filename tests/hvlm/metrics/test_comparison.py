"""Spread over seeds by hand; the paired bootstrap against all resamples of a small set, against scipy, and in parts."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hvlm.metrics.comparison import paired_bootstrap, seed_spread


def test_spread_by_hand():
    # mean 0.5; squared deviations 0.01 + 0 + 0.01, divided by 3 - 1 = 0.01, root 0.1
    spread = seed_spread([0.4, 0.5, 0.6])
    assert (spread.mean, spread.num_runs) == (pytest.approx(0.5), 3)
    assert spread.std == pytest.approx(0.1)


def test_one_run_has_no_deviation_and_none_has_no_mean():
    one, none = seed_spread([0.25]), seed_spread([])
    assert (one.mean, one.num_runs, none.num_runs) == (0.25, 1, 0)
    assert math.isnan(one.std) and math.isnan(none.mean) and math.isnan(none.std)


def test_no_samples_is_nan():
    assert math.isnan(paired_bootstrap(np.empty(0), np.empty(0), seed=0).mean)


def test_bootstrap_interval_is_that_of_all_resamples():
    a, b = np.array([1.0, 1.0, 0.0, 1.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.25, 0.0, 0.5, 1.0])
    means = [np.mean(np.take(a - b, picked)) for picked in itertools.product(range(6), repeat=6)]  # all 46,656
    result = paired_bootstrap(a, b, seed=0, num_resamples=200_000)
    assert result.mean == pytest.approx(1.75 / 6)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=1e-9)


def test_bootstrap_agrees_with_scipy_and_repeats():
    random = np.random.default_rng(2)
    a, b = (random.random(300) < 0.6).astype(float), (random.random(300) < 0.5).astype(float)
    ours = paired_bootstrap(a, b, seed=3)
    assert ours == paired_bootstrap(a, b, seed=3)
    assert ours != paired_bootstrap(a, b, seed=4)
    assert ours.mean == pytest.approx((a - b).mean())
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", random_state=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_bootstrap_is_paired():
    # B is A with one question lost: unpaired, the interval of 100 coin flips would be far wider than 1 / 100
    a = (np.random.default_rng(5).random(100) < 0.5).astype(float)
    b = a.copy()
    b[np.argmax(a)] = 0.0
    result = paired_bootstrap(a, b, seed=0)
    assert result.mean == pytest.approx(0.01)
    assert (result.low, result.high) == pytest.approx((0.0, 0.03))
    equal = paired_bootstrap(a, a, seed=0)
    assert (equal.low, equal.high) == (0.0, 0.0)


def test_bootstrap_of_many_distinct_values_is_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("hvlm.metrics.comparison.MAX_DRAWN", 7_000)
    a = np.random.default_rng(6).normal(0.5, 1.0, size=400)
    result = paired_bootstrap(a, np.zeros(400), seed=0, num_resamples=2_000)
    half = 1.96 * a.std() / 20
    assert (result.low, result.high) == pytest.approx((a.mean() - half, a.mean() + half), abs=0.015)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap(np.zeros(3), np.zeros(4), seed=0), "must be"),
        (lambda: paired_bootstrap(np.array([np.nan]), np.zeros(1), seed=0), "NaN"),
        (lambda: paired_bootstrap(np.zeros(1), np.zeros(1), seed=0, num_resamples=0), "1 or more resamples"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
