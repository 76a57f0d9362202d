"""Configuration of the baselines' trainings: HierarchicalVLM's backbone on its stream, with another objective."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.data.batching import BatchingConfig
from hvlm.models.baselines import MoCoConfig
from hvlm.models.heads import AlignmentConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from pipelines.training.config import Selection, TrainConfig


def _without_text() -> HierarchicalVLMConfig:
    return HierarchicalVLMConfig(alignment=AlignmentConfig(enabled=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedTrainConfig(TrainConfig, Config):
    """The labels of the annotations are the target. See `TrainConfig` for the rest.

    Direct Transformer: `model.pyramid: {kind: mean}`. TSN-style: `model.encoder: {kind: rows}` and
    `model.pyramid: {kind: segments, num_segments: 8}`. Fine-tuning: `start_checkpoint`, with `model.encoder` and
    `model.pyramid` as in that training.

    Args:
        model: the backbone, without text and without cross-scale predictor; its projector is not used.
        dropout: before the classifier.
        start_checkpoint: encoder and pyramid begin with the weights of this training of HierarchicalVLM (its output or
            one checkpoint) on the same features; null begins with new ones.
    """

    FIXED: ClassVar[tuple[str, ...]] = (*TrainConfig.FIXED, "model", "batching", "dropout", "start_checkpoint")

    system: Literal["supervised"] = "supervised"
    model: HierarchicalVLMConfig = field(default_factory=_without_text)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    dropout: float = 0.5
    start_checkpoint: str | None = None

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)  # super() does not find the class that slots=True makes anew
        _check_backbone(self.model)
        require(0 <= self.dropout < 1, what="dropout", got=self.dropout, expected="0 <= p < 1", do="e.g. 0.5")
        self.check_best_by("label_hit_at_1", "contrast_gap")
        self.check_workers("batching.global_batch_size", self.batching.global_batch_size)

    @property
    def best_metric(self) -> Selection:
        """What "best" compares, with `auto` resolved."""
        return "label_hit_at_1" if self.checkpoint.best_by == "auto" else self.checkpoint.best_by


@dataclass(frozen=True, slots=True, kw_only=True)
class MoCoTrainConfig(TrainConfig, Config):
    """Two views of a video must find each other among the queue's videos. See `TrainConfig` for the rest.

    Args:
        model: the backbone, without text and without cross-scale predictor; its projector is the MLP head.
        moco: momentum, queue, temperature, views.
    """

    FIXED: ClassVar[tuple[str, ...]] = (*TrainConfig.FIXED, "model", "batching", "moco")

    system: Literal["moco"] = "moco"
    model: HierarchicalVLMConfig = field(default_factory=_without_text)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    moco: MoCoConfig = field(default_factory=MoCoConfig)

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        _check_backbone(self.model)
        require(
            self.optimizer.accumulate_steps == 1,
            what="optimizer.accumulate_steps",
            got=self.optimizer.accumulate_steps,
            expected="1: every pass moves the key network and the queue",
            do="leave it out",
        )
        require(
            self.moco.queue_size >= self.batching.global_batch_size,
            what="moco.queue_size",
            got=self.moco.queue_size,
            expected=f"at least batching.global_batch_size, {self.batching.global_batch_size}",
            do="raise it, or lower the batch",
        )
        self.check_best_by("contrast_gap")
        self.check_workers("batching.global_batch_size", self.batching.global_batch_size)

    @property
    def best_metric(self) -> Selection:
        """What "best" compares, with `auto` resolved."""
        return "contrast_gap"


def _check_backbone(model: HierarchicalVLMConfig) -> None:
    values = {
        "alignment.enabled": model.alignment.enabled,
        "cross_scale": model.cross_scale,
        "num_classes": model.num_classes,
    }
    for name, value in values.items():
        require(
            not value,
            what=f"model.{name}",
            got=value,
            expected="none of it: this baseline has no loss that reaches it",
            do=f"set model.{name}: {'0' if name == 'num_classes' else 'false'}",
        )
