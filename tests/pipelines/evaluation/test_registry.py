"""Every system that can be trained and evaluated is named once."""

import pytest

from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.hierarchical_vlm.system import HierarchicalVLMEvaluation
from pipelines.evaluation.inputs import open_inputs
from pipelines.evaluation.registry import EVALUATE_CONFIG, open_evaluated
from pipelines.training.registry import TRAIN_CONFIG


def test_what_is_evaluated_is_trained():
    assert EVALUATE_CONFIG.types.keys() <= TRAIN_CONFIG.types.keys()
    assert EVALUATE_CONFIG.default == TRAIN_CONFIG.default


def test_the_configuration_chooses_the_system(planted):
    config = EVALUATE_CONFIG.types["hierarchical_vlm"](checkpoint=planted[1])
    assert isinstance(open_evaluated(config, open_inputs(config)), HierarchicalVLMEvaluation)
    with pytest.raises(TypeError, match="no system"):
        open_evaluated(EvaluateConfig(system="other", checkpoint="x"), None)
