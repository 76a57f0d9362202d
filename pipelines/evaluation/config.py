"""Configuration of `jobs.evaluate`."""

from dataclasses import dataclass, field
from typing import Literal

from hvlm.config import Config, require
from hvlm.encoders.config import ClipConfig
from hvlm.metrics.linear_probe import ProbeConfig
from hvlm.metrics.proposals import ProposalConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig
from pipelines.evaluation.embedding import VideoEmbedding
from pipelines.evaluation.spread import EvaluateResources


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(Config):
    """One evaluation; give `checkpoint` or `run_id`.

    Args:
        checkpoint: a checkpoint's folder, or a training's output_uri. run_id: a training's MLflow run.
        which: with an output_uri or a run, the checkpoint with the best dev score or the latest one.
        store_uri: null is the store of the training at its pinned version; another one is read at its newest version,
            without reported videos that the training had in train or dev.
        output_uri: null is `evaluation/step-…` beside the training's checkpoints, with a folder for another store.
        splits: to report on. Probes are fitted on train and chosen on dev whatever stands here, so train and
            dev have no probe figures.
        video_embedding: what probes read of ours: the pyramid's top node, the mean row, or both.
        text_encoder: null is the training's; needed to score raw CLIP retrieval for a model without text.
        max_probe_rows: rows over all videos that frame probes and ranks see; longer videos are thinned evenly.
        num_timelines: videos whose truth and predictions are drawn.
        tracking: null is where the training was tracked.
    """

    checkpoint: str | None = None
    run_id: str | None = None
    which: Literal["best", "latest"] = "best"
    store_uri: str | None = None
    output_uri: str | None = None
    splits: tuple[str, ...] = ("val",)
    video_embedding: VideoEmbedding = "top"
    text_encoder: ClipConfig | None = None
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    knn_k: int = 20
    max_probe_rows: int = 100_000
    num_timelines: int = 4
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
        for name, least in (("knn_k", 1), ("max_probe_rows", 1), ("num_timelines", 0), ("seed", 0)):
            value = getattr(self, name)
            require(value >= least, what=name, got=value, expected=f"{least} or more", do=f"raise {name}")
