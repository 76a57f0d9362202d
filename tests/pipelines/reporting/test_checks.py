"""What is not comparable is refused with the runs and what differs, or comes back to be flagged."""

from dataclasses import replace

import pytest

from hvlm.errors import UserError
from pipelines.reporting.checks import find_mismatches
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import group_methods
from tests.pipelines.reporting.made_runs import MEAN_AP, RECALL, made_run

FIRST = made_run("1" * 32, method="flat")
KEYS = ["k0", "k1", "k2", "new"]


def _messages(*others):
    config = ReportConfig(output_uri="out", experiment="e", on_mismatch="flag")
    return [(item.run_id[0], item.message) for item in find_mismatches(group_methods([FIRST, *others], config), config)]


def test_equal_sets_are_fine_whatever_the_order():
    other = made_run("2" * 32, method="ours", keys=["k3", "k2", "k1", "k0"])
    assert _messages(other, made_run("3" * 32, method="ours", seed=1)) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made_run("2" * 32, manifest="cd" * 32), "store manifest cdcdcdcdcdcd instead of abababababab"),
        (made_run("2" * 32, keys=KEYS), "val has other samples, 4 instead of 4, lacks 'k3', has also 'new'"),
        (
            made_run("2" * 32, ranks=(1,), raw_ranks=(1,)),
            "val has other samples, 1 instead of 4, lacks 'k1', 'k2', 'k3'",
        ),
        (replace(made_run("2" * 32), samples={}), "no samples_val.parquet, so that nobody knows its samples"),
        (
            replace(made_run("2" * 32), logged={RECALL: 0.75, MEAN_AP: 0.5}),
            f"{RECALL} is 0.5 in metrics.json and 0.75 in MLflow at step 20",
        ),
        (
            replace(made_run("2" * 32), logged={RECALL: 0.5}),
            f"{MEAN_AP} is 0.5 in metrics.json and not logged at step 20",
        ),
    ],
)
def test_what_differs_is_named(other, message):
    other = replace(other, tags=other.tags | {"sweep.method": "ours"})
    assert _messages(other) == [("2", message)]
    with pytest.raises(UserError, match=r"run 2{32} \(ours\): ") as refused:
        config = ReportConfig(output_uri="out", experiment="e")
        find_mismatches(group_methods([FIRST, other], config), config)
    assert message in str(refused.value)


def test_other_splits_and_a_wrong_count():
    other = made_run("2" * 32, method="ours")
    other.document["splits"] = {"test": 4}
    assert [text for _, text in _messages(other)] == [
        "splits test instead of val",
        "no samples_test.parquet, so that nobody knows its samples",
    ]
    other = made_run("2" * 32, method="ours")
    other.document["splits"] = {"val": 5}
    assert [text for _, text in _messages(other)] == ["4 rows in samples_val.parquet, 5 samples in metrics.json"]


def test_a_seed_counts_once():
    twice = [made_run("2" * 32, method="ours"), made_run("3" * 32, method="ours")]
    first = "seed 0 a second time, after run 22222222222222222222222222222222: no independent repetition"
    assert _messages(*twice) == [("3", first)]
