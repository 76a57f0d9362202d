"""Every evaluated system has what the evaluation knows of it."""

import pytest

from pipelines.evaluation.hierarchical_vlm.system import HierarchicalVLMEvaluation
from pipelines.evaluation.hiervl.system import HierVLEvaluation
from pipelines.evaluation.system import EvaluatedSystem

OF_THE_PROTOCOL = {name for name in vars(EvaluatedSystem) if not name.startswith("_")}


@pytest.mark.parametrize("system", [HierarchicalVLMEvaluation, HierVLEvaluation])
def test_a_system_has_all_members(system):
    assert {"facts", "measure"} == OF_THE_PROTOCOL
    assert set(dir(system)) >= OF_THE_PROTOCOL
