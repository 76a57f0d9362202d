"""Every system that can be trained and evaluated is named once."""

import pytest

from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.hierarchical_vlm.system import HierarchicalVLMEvaluation
from pipelines.evaluation.hiervl.system import HierVLEvaluation
from pipelines.evaluation.inputs import open_inputs
from pipelines.evaluation.registry import EVALUATE_CONFIG, open_evaluated
from pipelines.training.registry import TRAIN_CONFIG
from tests.pipelines.evaluation.hiervl.planted_hiervl import make_checkpoint


def test_whatever_is_trained_is_evaluated_by_one_system():
    trained = [name for config in EVALUATE_CONFIG.types.values() for name in config.TRAINED_AS]
    assert sorted(trained) == sorted(TRAIN_CONFIG.types)
    assert EVALUATE_CONFIG.default == TRAIN_CONFIG.default


def test_the_configuration_chooses_the_system(planted, tmp_path):
    make_checkpoint(planted[0], tmp_path)
    for name, uri, system in (
        ("hierarchical_vlm", planted[1], HierarchicalVLMEvaluation),
        ("hiervl", str(tmp_path), HierVLEvaluation),
    ):
        config = EVALUATE_CONFIG.types[name](checkpoint=uri)
        assert isinstance(open_evaluated(config, open_inputs(config)), system)
    with pytest.raises(TypeError, match="no system"):
        open_evaluated(EvaluateConfig(system="other", checkpoint="x"), None)
