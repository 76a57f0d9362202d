"""Configuration of a training of HierarchicalVLM."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.data.batching import BatchingConfig
from hvlm.losses.objective import ObjectiveConfig, check_objective
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from pipelines.training.config import WITHOUT_TEXT, Selection, TextConfig, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchicalVLMTrainConfig(TrainConfig, Config):
    """Whole videos with one text each. See `TrainConfig` for the rest."""

    FIXED: ClassVar[tuple[str, ...]] = (*TrainConfig.FIXED, "model", "objective", "text", "batching")

    system: Literal["hierarchical_vlm"] = "hierarchical_vlm"
    model: HierarchicalVLMConfig = field(default_factory=HierarchicalVLMConfig)
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(text=1.0))
    text: TextConfig = field(default_factory=TextConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)  # super() does not find the class that slots=True makes anew
        check_objective(self.model, self.objective)
        require(
            not self.model.alignment.enabled or self.text.encoder is not None,
            what="text.encoder",
            got="none",
            expected="the CLIP encoder of the store, as model.alignment.enabled needs text",
            do=f"copy the encoder from the extraction's config, or {WITHOUT_TEXT}",
        )
        require(
            self.checkpoint.best_by != "text_to_video" or self.uses_text,
            what="checkpoint.best_by",
            got="text_to_video",
            expected="a training with text",
            do="set best_by: contrast_gap, or objective.text above 0",
        )
        self.check_best_by("text_to_video", "contrast_gap")
        self.check_workers("batching.global_batch_size", self.batching.global_batch_size)

    @property
    def uses_text(self) -> bool:
        """Whether text features are read."""
        return self.model.alignment.enabled and self.objective.text > 0

    @property
    def best_metric(self) -> Selection:
        """What "best" compares, with `auto` resolved."""
        if self.checkpoint.best_by == "auto":
            return "text_to_video" if self.uses_text else "contrast_gap"
        return self.checkpoint.best_by
