"""Grouping: only the seed may differ; names by tag, else by what differs; the baseline first."""

import pytest

from hvlm.errors import UserError
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import differing_settings, group_methods
from tests.pipelines.reporting.made_runs import made_run

CONFIG = ReportConfig(output_uri="out", experiment="e")


def _names(runs, **changes):
    return [
        (method.name, [run.seed for run in method.runs])
        for method in group_methods(runs, ReportConfig(output_uri="out", experiment="e", **changes))
    ]


def test_runs_that_differ_only_in_seed_and_place_are_one_method_in_the_order_of_seeds():
    runs = [
        made_run("1" * 32, seed=10, params={"output_uri": "/a", "resources.num_workers": "2"}),
        made_run("2" * 32, seed=9, params={"output_uri": "/b"}),
        made_run("3" * 32, seed=9, params={"epochs": "8"}),
    ]
    assert _names(runs) == [("epochs=4", ["9", "10"]), ("epochs=8", ["9"])]


def test_a_tag_names_and_never_hides_another_setting():
    runs = [
        made_run("1" * 32, method="flat"),
        made_run("2" * 32, method="ours"),
        made_run("3" * 32, method="ours", seed=1, params={"lr": "1"}),
    ]
    assert _names(runs, baseline="flat") == [("flat", ["0"]), ("ours (lr=(not set))", ["0"]), ("ours (lr=1)", ["1"])]


def test_another_training_store_or_evaluated_embedding_is_another_method():
    other = made_run("3" * 32, seed=2)
    other.document["video_embedding"] = "mean"
    runs = [made_run("1" * 32), made_run("2" * 32, seed=1, tags={"store.manifest_hash": "cd" * 32}), other]
    assert [len(seeds) for _, seeds in _names(runs)] == [1, 1, 1]


def test_runs_without_a_seed_are_never_averaged():
    runs = [made_run("1" * 32, seed=None), made_run("2" * 32, seed=None)]
    assert [name for name, _ in _names(runs)] == ["run 11111111", "run 22222222"]


def test_the_baseline_comes_first_and_must_exist():
    runs = [made_run("1" * 32, method="ours"), made_run("2" * 32, method="flat", params={"lr": "1"})]
    assert [name for name, _ in _names(runs, baseline="flat")] == ["flat", "ours"]
    with pytest.raises(UserError, match=r"baseline: got other; expected raw or one of ours, flat"):
        _names(runs, baseline="other")


def test_settings_that_differ():
    methods = group_methods([made_run("1" * 32), made_run("2" * 32, params={"lr": "1"})], CONFIG)
    assert differing_settings(methods) == {"lr": ["(not set)", "1"]}
