from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from tests.pipelines.sweep.world import sweep


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "methods: got none"),
        ({"methods": {"a/b": {}}}, "the name 'a/b'; expected letters"),
        ({"methods": {"..": {}}}, r"the name '\.\.'"),
        ({"seeds": []}, r"seeds: got \(\)"),
        ({"seeds": [1, 1]}, r"seeds: got \(1, 1\); expected different numbers"),
        ({"seeds": [-1]}, r"seeds: got \(-1,\)"),
        ({"max_concurrent": 0}, "max_concurrent: got 0"),
        ({"max_failed": -1}, "max_failed: got -1"),
        ({"grid": {"optimizer.lr": []}}, r"grid\.optimizer\.lr: got no value"),
        ({"grid": {"epochs": [1]}, "methods": {"a": {"epochs": 2}}}, "a key that the method '.'a'.' sets too"),
        ({"methods": {"a": {"seed": 3}}}, r"methods\.a: got the key 'seed'; expected none of seed"),
        ({"overrides": {"tracking.uri": "x"}}, "overrides: got the key 'tracking.uri'"),
        ({"grid": {"output_uri": ["x"]}}, "grid: got the key 'output_uri'"),
        ({"overrides": {"evaluation.checkpoint": "x"}}, "the key 'evaluation.checkpoint'"),
        ({"overrides": {"evaluation.knn_k": 1}, "evaluation": None}, "'evaluation.knn_k' in a sweep without"),
        ({"method": {}}, "method is not a known key"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep(tmp_path, **changes)


def test_what_one_of_the_two_files_has_alone_may_be_set(tmp_path: Path) -> None:
    """The evaluation's seed is no part of the sweep, nor is the section `checkpoint` of a training."""
    changes = {"evaluation.seed": 3, "checkpoint.every_steps": 5}
    assert sweep(tmp_path, overrides=changes).overrides == changes
