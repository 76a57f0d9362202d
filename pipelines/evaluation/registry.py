"""The systems that `jobs.evaluate` evaluates: the YAML key `system` names one, as in the training's YAML."""

from infra.config_io import ConfigChoice
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.hierarchical_vlm.system import HierarchicalVLMEvaluation
from pipelines.evaluation.hiervl.config import HierVLEvaluateConfig
from pipelines.evaluation.hiervl.system import HierVLEvaluation
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.system import EvaluatedSystem
from pipelines.training.registry import DEFAULT_SYSTEM

EVALUATE_CONFIG: ConfigChoice[EvaluateConfig] = ConfigChoice(
    key="system",
    default=DEFAULT_SYSTEM,
    types={"hierarchical_vlm": HierarchicalVLMEvaluateConfig, "hiervl": HierVLEvaluateConfig},
)


def open_evaluated(config: EvaluateConfig, inputs: EvaluationInputs) -> EvaluatedSystem:
    """Return the system of a configuration with the checkpoint of the inputs.

    Raises:
        UserError: the checkpoint does not fit the system or the store.
    """
    if isinstance(config, HierarchicalVLMEvaluateConfig):
        return HierarchicalVLMEvaluation.open(config, inputs)
    if isinstance(config, HierVLEvaluateConfig):
        return HierVLEvaluation.open(config, inputs)
    raise TypeError(f"no system is evaluated by a {type(config).__name__}")
