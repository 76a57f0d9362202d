"""What every configuration of `jobs.evaluate` has; each system adds its own (`registry.EVALUATE_CONFIG`)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.metrics.linear_probe import ProbeConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig
from pipelines.evaluation.spread import EvaluateResources


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(Config):
    """One evaluation; give `checkpoint` or `run_id`.

    `TRAINED_AS`: the systems of the training whose checkpoints are evaluated so.

    Args:
        system: how the checkpoint is evaluated: by the groups of metrics of this system.
        checkpoint: a checkpoint's folder, or a training's output_uri. run_id: a training's MLflow run.
        which: with an output_uri or a run, the checkpoint with the best dev score or the latest one.
        store_uri: null is the store of the training at its pinned version; another one is read at its newest version,
            without reported videos that the training had in train or dev.
        output_uri: null is `evaluation/step-…` beside the training's checkpoints, with a folder for another store.
        splits: to report on. Probes are fitted on train and chosen on dev whatever stands here, so train and
            dev have no probe figures.
        probe: how linear probes are fitted. knn_k: neighbours of k-NN.
        tracking: null is where the training was tracked.
    """

    TRAINED_AS: ClassVar[tuple[str, ...]] = ()

    system: str
    checkpoint: str | None = None
    run_id: str | None = None
    which: Literal["best", "latest"] = "best"
    store_uri: str | None = None
    output_uri: str | None = None
    splits: tuple[str, ...] = ("val",)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    knn_k: int = 20
    seed: int = 0
    resources: EvaluateResources = field(default_factory=EvaluateResources)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig | None = None

    def __post_init__(self) -> None:
        require(
            (self.checkpoint is None) != (self.run_id is None),
            what="checkpoint, run_id",
            got=f"checkpoint={self.checkpoint}, run_id={self.run_id}",
            expected="exactly one of the two",
            do="name a checkpoint folder (or a training's output_uri) or an MLflow run",
        )
        require(len(self.splits) > 0, what="splits", got="none", expected="at least one", do="set splits: [val]")
        self.require_least(knn_k=1, seed=0)

    def require_least(self, **least: int) -> None:
        """Raise unless each named value is at least so high."""
        for name, limit in least.items():
            value = getattr(self, name)
            require(value >= limit, what=name, got=value, expected=f"{limit} or more", do=f"raise {name}")
