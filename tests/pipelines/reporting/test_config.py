"""What a report's configuration refuses."""

import pytest

from hvlm.errors import UserError
from pipelines.reporting.config import ReportConfig


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({}, "run_ids, experiment"),
        ({"run_ids": ("a",), "filter": "tags.x = 'y'"}, "filter"),
        ({"run_ids": ("a", "a")}, "a run twice"),
        ({"experiment": "e", "num_resamples": 99}, "num_resamples"),
        ({"experiment": "e", "bootstrap_seed": -1}, "bootstrap_seed"),
        ({"experiment": "e", "splits": ()}, "splits"),
        ({"experiment": "e", "metrics": ()}, "metrics"),
    ],
)
def test_wrong_values_are_refused(values, what):
    with pytest.raises(UserError, match=what):
        ReportConfig(output_uri="out", **values)


def test_the_page_has_an_experiment_of_its_own():
    assert ReportConfig(output_uri="out", experiment="e").tracking.experiment == "reports"
