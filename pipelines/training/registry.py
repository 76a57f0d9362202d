"""The systems that `jobs.train` trains: the YAML key `system` names one."""

from infra.config_io import ConfigChoice
from pipelines.store.manifest import Manifest
from pipelines.training.baselines.config import MoCoTrainConfig, SupervisedTrainConfig
from pipelines.training.baselines.moco import MoCoSystem, prepare_moco
from pipelines.training.baselines.supervised import SupervisedSystem, prepare_supervised
from pipelines.training.config import TrainConfig
from pipelines.training.hierarchical_vlm.config import HierarchicalVLMTrainConfig
from pipelines.training.hierarchical_vlm.system import HierarchicalVLMSystem, prepare_hierarchical_vlm
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.hiervl.prepare import prepare_hiervl
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.system import Prepared, RankContext, System
from pipelines.training.text import EncodeText

DEFAULT_SYSTEM = "hierarchical_vlm"
TRAIN_CONFIG: ConfigChoice[TrainConfig] = ConfigChoice(
    key="system",
    default=DEFAULT_SYSTEM,
    types={
        "hierarchical_vlm": HierarchicalVLMTrainConfig,
        "hiervl": HierVLTrainConfig,
        "supervised": SupervisedTrainConfig,
        "moco": MoCoTrainConfig,
    },
)


def prepare_system(config: TrainConfig, manifest: Manifest, encode: EncodeText | None) -> Prepared:
    """Return what the configuration's system makes of the store.

    Args:
        config: one of `TRAIN_CONFIG.types`.
        manifest: the pinned data.
        encode: replaces the text tower (tests).

    Raises:
        UserError: the store has not what the system needs.
    """
    if isinstance(config, HierarchicalVLMTrainConfig):
        return prepare_hierarchical_vlm(config, manifest, encode)
    if isinstance(config, HierVLTrainConfig):
        return prepare_hiervl(config, manifest, encode)
    if isinstance(config, SupervisedTrainConfig):
        return prepare_supervised(config, manifest)
    if isinstance(config, MoCoTrainConfig):
        return prepare_moco(config, manifest)
    raise TypeError(f"no system trains a {type(config).__name__}")


def open_system(job: TrainJob, context: RankContext) -> System:
    """Return one rank's view of the job's system."""
    if isinstance(job.config, HierarchicalVLMTrainConfig):
        return HierarchicalVLMSystem(job, job.config, context)
    if isinstance(job.config, HierVLTrainConfig):
        return HierVLSystem(job, job.config, context)
    if isinstance(job.config, SupervisedTrainConfig):
        return SupervisedSystem(job, job.config, context)
    if isinstance(job.config, MoCoTrainConfig):
        return MoCoSystem(job, job.config, context)
    raise TypeError(f"no system trains a {type(job.config).__name__}")
