"""Ranges of what HierVL adds to the evaluation's configuration."""

import pytest

from hvlm.errors import UserError
from pipelines.evaluation.hiervl.config import HierVLEvaluateConfig


def test_bad_values_are_refused():
    with pytest.raises(UserError, match="num_map_points"):
        HierVLEvaluateConfig(checkpoint="a", num_map_points=-1)
    with pytest.raises(UserError, match="exactly one"):
        HierVLEvaluateConfig()
