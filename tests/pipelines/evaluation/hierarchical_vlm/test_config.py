"""Ranges of what HierarchicalVLM adds to the evaluation's configuration."""

import pytest

from hvlm.errors import UserError
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig


@pytest.mark.parametrize("name", ["max_probe_rows", "num_timelines", "knn_k"])
def test_bad_values_are_refused(name):
    with pytest.raises(UserError, match=name):
        HierarchicalVLMEvaluateConfig(checkpoint="a", **{name: -1})
