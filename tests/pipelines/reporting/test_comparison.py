"""The table by hand: mean ± std, references, paired differences, and why there is none."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.reporting.comparison import compare
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import group_methods
from tests.pipelines.reporting.made_runs import MEAN_AP, RECALL, made_run

FLAT = made_run("1" * 32, method="flat", ranks=(2, 2, 1, 4), mean_ap=0.4)
OURS = [
    made_run("2" * 32, method="ours", seed=0, ranks=(1, 2, 1, 4), mean_ap=0.4),
    made_run("3" * 32, method="ours", seed=1, ranks=(1, 1, 1, 4), mean_ap=0.5),
    made_run("4" * 32, method="ours", seed=2, ranks=(1, 1, 1, 1), mean_ap=0.6),
]


def _compare(runs, **changes):
    config = ReportConfig(output_uri="out", experiment="e", **changes)
    return {metric.name: metric for metric in compare(group_methods(runs, config), config)}


def test_mean_std_and_references_by_hand():
    found = _compare([FLAT, *OURS])
    cell = found[RECALL].cells["ours"]  # 2, 3 and 4 of 4: mean 0.75, deviations 0.25, root of (2 / 16) / 2 = 0.25
    assert (cell.spread.mean, cell.spread.std, cell.spread.num_runs) == (0.75, 0.25, 3)
    assert cell.by_run == (("22222222", "0", 0.5), ("33333333", "1", 0.75), ("44444444", "2", 1.0))
    assert found[MEAN_AP].cells["ours"].spread.std == pytest.approx(0.1)
    assert found[RECALL].cells["flat"].spread.num_runs == 1
    assert math.isnan(found[RECALL].cells["flat"].spread.std)
    assert found[RECALL].references == {"raw": (0.25, 0.25), "chance": (0.25, 0.25)}
    assert (found[RECALL].count, found[MEAN_AP].count) == ("4 summaries", "4 videos")


def test_the_interval_is_that_of_all_resamples_of_the_paired_samples():
    found = _compare([FLAT, *OURS], baseline="flat")[RECALL]
    # ours per sample, mean over three seeds: 1, 2/3, 1, 1/3; flat: 0, 0, 1, 0
    difference = np.array([1.0, 2 / 3, 0.0, 1 / 3])
    means = [np.mean(np.take(difference, picked)) for picked in itertools.product(range(4), repeat=4)]
    got = found.cells["ours"].difference
    assert got.mean == pytest.approx(0.5) and got.num_samples == 4
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=1e-9)
    assert found.cells["ours"].relative == pytest.approx((0.75 - 0.25) / 0.25)
    assert found.cells["flat"].difference is None and found.cells["flat"].why_none == ""


def test_against_raw_each_run_is_paired_with_what_it_read():
    got = _compare(OURS[:1])[RECALL].cells["ours"].difference  # ours 1 0 1 0, raw 0 0 1 0
    assert (got.mean, got.num_samples) == (0.25, 4)


def test_no_interval_says_why():
    assert "no values per sample" in _compare([FLAT, *OURS], baseline="flat")[MEAN_AP].cells["ours"].why_none
    other = made_run("5" * 32, method="other", keys=["k0", "k1", "k2", "new"])
    assert _compare([FLAT, other], baseline="flat")[RECALL].cells["other"].why_none == "not the same samples"
    mixed = [OURS[0], replace(other, tags=OURS[0].tags, params=OURS[1].params)]
    assert _compare([FLAT, *mixed], baseline="flat")[RECALL].cells["ours"].why_none == "not the same samples"
    wrong = replace(OURS[0], samples=FLAT.samples)
    assert "do not give its figure" in _compare([FLAT, wrong], baseline="flat")[RECALL].cells["ours"].why_none
    empty = replace(OURS[0], rows={MEAN_AP: OURS[0].rows[MEAN_AP]})
    cell = _compare([FLAT, empty], baseline="flat")[RECALL].cells["ours"]
    assert (cell.spread.num_runs, cell.by_run) == (0, ())
    half = _compare([FLAT, empty, OURS[1]], baseline="flat")[RECALL].cells["ours"]
    assert half.spread.num_runs == 1 and half.why_none == "run 22222222 has no value of ours"


def test_the_same_seed_gives_the_same_interval():
    one, two = (_compare([FLAT, *OURS], baseline="flat", bootstrap_seed=seed, num_resamples=100) for seed in (0, 0))
    assert one[RECALL].cells["ours"] == two[RECALL].cells["ours"]
