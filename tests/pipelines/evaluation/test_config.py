"""Ranges of the evaluation's configuration."""

import pytest

from hvlm.errors import UserError
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.spread import EvaluateResources


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of the two"),
        ({"checkpoint": "a", "run_id": "b"}, "exactly one of the two"),
        ({"checkpoint": "a", "splits": ()}, "splits"),
        ({"checkpoint": "a", "knn_k": 0}, "knn_k"),
        ({"checkpoint": "a", "seed": -1}, "seed"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        EvaluateConfig(system="hierarchical_vlm", **values)


@pytest.mark.parametrize(
    "values",
    [
        {"num_actors": 0},
        {"num_cpus_per_actor": 0.0},
        {"num_gpus_per_actor": -1.0},
        {"videos_per_task": 0},
        {"rows_per_forward": 0},
    ],
)
def test_bad_resources_are_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        EvaluateResources(**values)
