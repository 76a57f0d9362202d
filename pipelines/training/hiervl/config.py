"""Configuration of a training of HierVL."""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.encoders.config import ClipConfig, LoraConfig
from hvlm.models.hiervl import HierVLConfig, PresetName, with_preset
from pipelines.training.config import ImportedTextConfig, Selection, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBatchingConfig(Config):
    """Global batches, the same for any number of workers.

    `child_batch_size`: captions with their clips. `parent_batch_size`: videos with a summary; it is the number of the
    parent level's negatives, so keep it at 32 or more where the data allow it. `window`: samples that are shuffled
    together, as in HierarchicalVLM's batching. `scene_bin_s`: every caption brings another one of the same video and
    the same bin of so many seconds, drawn anew each time, as a hard negative: a child batch then has twice the rows.
    """

    child_batch_size: int = 64
    parent_batch_size: int = 32
    window: int = 4096
    scene_bin_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("child_batch_size", "parent_batch_size"):
            value = getattr(self, name)
            require(
                value >= 2,
                what=f"batching.{name}",
                got=value,
                expected="2 or more, as the rows of a batch are each other's negatives",
                do=f"raise {name}",
            )
        require(self.window >= 1, what="batching.window", got=self.window, expected="1 or more", do="e.g. 4096")
        require(
            self.scene_bin_s is None or self.scene_bin_s > 0,
            what="batching.scene_bin_s",
            got=self.scene_bin_s,
            expected="above 0 seconds",
            do="set e.g. 60.0, or leave it out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HierVLTextConfig(Config):
    """Where the vectors of texts come from.

    `encoder`: the CLIP model whose image tower made a column of the store; its text tower encodes all texts. Or the
    text features that were imported with a column. `lora`: adapters in the text tower, which are trained; null leaves
    it as it is, and every text is encoded once.
    """

    encoder: ClipConfig | ImportedTextConfig
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        require(
            self.lora is None or isinstance(self.encoder, ClipConfig),
            what="text.lora",
            got="adapters beside imported text features",
            expected="a CLIP encoder, whose text tower they go into",
            do="name a CLIP encoder, or leave lora out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HierVLTrainConfig(TrainConfig, Config):
    """Clips with captions and whole videos with summaries. See `TrainConfig` for the rest.

    Args:
        preset: the method by its name (`hvlm.models.hiervl.METHODS`): it fills in what the section `model` says of
            aggregator.kind, schedule.kind, terms, summaries_as_captions and start. Without it the section says all.
        sampling: clips, frames and captions of a sample; `num_frames` holds for a caption's clip too.
        start_checkpoint: of a child-only training, for `start: child_only` (a training's output or one checkpoint).
    """

    FIXED: ClassVar[tuple[str, ...]] = (
        *TrainConfig.FIXED,
        "preset",
        "model",
        "sampling",
        "text",
        "batching",
        "start_checkpoint",
    )

    system: Literal["hiervl"] = "hiervl"
    preset: PresetName | None = None
    model: HierVLConfig = field(default_factory=HierVLConfig)
    sampling: ParentSamplingConfig = field(default_factory=ParentSamplingConfig)
    text: HierVLTextConfig
    batching: LevelBatchingConfig = field(default_factory=LevelBatchingConfig)
    start_checkpoint: str | None = None

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)  # super() does not find the class that slots=True makes anew
        if self.preset is not None:
            _check_not_said_twice(self.model, self.preset)
            object.__setattr__(self, "model", with_preset(self.model, self.preset))
        aggregator, clip = self.model.aggregator, self.model.clip
        require(
            aggregator.kind == "average" or aggregator.num_clips == self.sampling.num_clips,
            what="sampling.num_clips",
            got=self.sampling.num_clips,
            expected=f"model.aggregator.num_clips, {aggregator.num_clips}",
            do="set both to the same number",
        )
        require(
            clip.kind == "mean" or clip.max_frames >= self.sampling.num_frames,
            what="sampling.num_frames",
            got=self.sampling.num_frames,
            expected=f"at most model.clip.max_frames, {clip.max_frames}",
            do="lower it, or raise model.clip.max_frames",
        )
        require(
            (self.model.start == "child_only") == (self.start_checkpoint is not None),
            what="start_checkpoint",
            got=self.start_checkpoint or "none",
            expected="a child-only training with model.start: child_only, none with scratch",
            do="set both, or neither",
        )
        self.check_best_by("summary_mcq", "text_to_video")
        require(
            self.batching.scene_bin_s is None or not self.model.summaries_as_captions,
            what="batching.scene_bin_s",
            got=f"{self.batching.scene_bin_s} with summaries as captions",
            expected="none: a summary has no time of its own",
            do="leave it out",
        )
        require(
            self.batching.scene_bin_s is None or self.model.ego_nce.tags != "none",
            what="model.ego_nce.tags",
            got="none with batching.scene_bin_s",
            expected="captions with equal words to be each other's positives: a scene repeats what is done in it",
            do="set tags to both, verb or noun",
        )
        require(
            self.batching.scene_bin_s is None or self.optimizer.accumulate_steps == 1,
            what="optimizer.accumulate_steps",
            got=f"{self.optimizer.accumulate_steps} with batching.scene_bin_s",
            expected="1: a caption and the hard negative of its scene must be compared with each other",
            do="leave out one of the two",
        )
        for name in ("child_batch_size", "parent_batch_size"):
            self.check_workers(f"batching.{name}", getattr(self.batching, name))

    @property
    def best_metric(self) -> Selection:
        """What "best" compares, with `auto` resolved."""
        return "summary_mcq" if self.checkpoint.best_by == "auto" else self.checkpoint.best_by


def _check_not_said_twice(model: HierVLConfig, preset: PresetName) -> None:
    """Refuse a method's field that says neither its default nor what the preset says: the preset would hide it."""
    said, named, default = (_method(each) for each in (model, with_preset(model, preset), HierVLConfig()))
    wrong = [name for name, value in said.items() if value not in (named[name], default[name])]
    require(
        not wrong,
        what=f"preset {preset} beside model.{wrong[0] if wrong else ''}",
        got=said[wrong[0]] if wrong else "",
        expected=f"{named[wrong[0]] if wrong else ''}, which the preset says, or nothing",
        do="leave out one of the two",
    )


def _method(model: HierVLConfig) -> dict[str, object]:
    """What a preset says, by dotted names."""
    terms = {f"terms.{each.name}": getattr(model.terms, each.name) for each in fields(model.terms)}
    return terms | {
        "aggregator.kind": model.aggregator.kind,
        "schedule.kind": model.schedule.kind,
        "summaries_as_captions": model.summaries_as_captions,
        "start": model.start,
    }
