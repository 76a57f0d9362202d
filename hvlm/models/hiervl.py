"""HierVL: clips with captions (child level) and aggregated clips and captions with summaries (parent level), one space.

One clip encoder, one text encoder and one aggregator serve both levels. Outputs are *projected*, not normalised: the
aggregator works on them, and the cosine of the loss normalises.

Shapes: B clips, V videos, C clips or captions of a video, T frames of a clip, I width of the features, X width of the
text features, E width of the joint space, K = V * C. An encoder of pixels or tokens has other axes in the place of I
or X.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from hvlm.config import Config, require
from hvlm.errors import UserError
from hvlm.losses.ego_nce import EgoNCEConfig, ParentTermsConfig
from hvlm.models.aggregator import AggregatorConfig, AggregatorKind, build_aggregator
from hvlm.models.attention import padded
from hvlm.models.clip_encoder import ClipEncoderConfig, build_clip_encoder

Level = Literal["child", "parent"]
ScheduleKind = Literal["alternate", "sum", "child", "parent"]
Start = Literal["scratch", "child_only"]
PresetName = Literal["sa", "avg", "wo_joint", "wo_hier", "wo_summ", "wo_summ_narr", "child_only", "parent_only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig(Config):
    """Which levels an optimizer step trains, from the global step alone, so that all ranks and all restarts agree.

    `alternate`: after every `child_steps` child steps one parent step. `sum`: both in every step. `child`, `parent`:
    only that level.
    """

    kind: ScheduleKind = "alternate"
    child_steps: int = 5

    def __post_init__(self) -> None:
        require(
            self.child_steps >= 1,
            what="schedule.child_steps",
            got=self.child_steps,
            expected="1 or more",
            do="use kind: parent for no child steps",
        )

    def levels(self, step: int) -> tuple[Level, ...]:
        """Levels of global step `step` (from 0). With two, run forward and backward of each, then the optimizer."""
        if self.kind == "sum":
            return ("child", "parent")
        if self.kind != "alternate":
            return (self.kind,)
        return ("parent",) if step % (self.child_steps + 1) == self.child_steps else ("child",)

    def batches_before(self, step: int, level: Level) -> int:
        """Batches of `level` that the steps before `step` took: where that level's data goes on after a restart."""
        if self.kind != "alternate":
            return step if level in self.levels(0) else 0
        num_parent = step // (self.child_steps + 1)
        return num_parent if level == "parent" else step - num_parent


@dataclass(frozen=True, slots=True, kw_only=True)
class HierVLConfig(Config):
    """The model and the method of its training. `dim`: width E of the joint space.

    `text_hidden`: null for the published ReLU → Linear on the text vectors; a width for Linear → GELU → Linear.
    `summaries_as_captions`: summaries join the child level's captions, each with a short clip from inside its part of
    the video (the flat baseline). `start` "child_only": the weights of a finished child-only run.
    """

    clip: ClipEncoderConfig = field(default_factory=ClipEncoderConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    dim: int = 256
    text_hidden: int | None = None
    ego_nce: EgoNCEConfig = field(default_factory=EgoNCEConfig)
    terms: ParentTermsConfig = field(default_factory=ParentTermsConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    summaries_as_captions: bool = False
    start: Start = "scratch"

    def __post_init__(self) -> None:
        require(self.dim >= 2, what="model.dim", got=self.dim, expected="2 or more", do="e.g. dim: 256")
        require(
            self.text_hidden is None or self.text_hidden >= 1,
            what="model.text_hidden",
            got=self.text_hidden,
            expected="null, or a width of 1 or more",
            do="e.g. text_hidden: 64",
        )
        require(
            self.schedule.kind != "child" or self.aggregator.kind == "average",
            what="aggregator.kind",
            got=f"{self.aggregator.kind} with schedule.kind child",
            expected="average: without parent steps an aggregator with parameters stays untrained",
            do="set aggregator.kind: average, or another schedule",
        )


class Method(NamedTuple):
    """What a preset says; sizes, temperature and `child_steps` are not its business."""

    aggregator: AggregatorKind
    schedule: ScheduleKind
    terms: ParentTermsConfig = ParentTermsConfig()
    summaries_as_captions: bool = False
    start: Start = "scratch"


METHODS: Mapping[PresetName, Method] = {
    "sa": Method("self_attention", "alternate"),
    "avg": Method("average", "alternate"),
    "wo_joint": Method("self_attention", "parent", start="child_only"),
    "wo_hier": Method("average", "child", summaries_as_captions=True),
    "wo_summ": Method(
        "self_attention",
        "alternate",
        ParentTermsConfig(summary_video=False, summary_caption=False, caption_video=True),
    ),
    "wo_summ_narr": Method("self_attention", "alternate", ParentTermsConfig(summary_caption=False)),
    "child_only": Method("average", "child"),
    "parent_only": Method("self_attention", "parent"),
}


def with_preset(config: HierVLConfig, name: PresetName) -> HierVLConfig:
    """`config` with the method called `name`: aggregator, schedule, terms, captions and start; its sizes stay.

    Raises:
        UserError: unknown name.
    """
    require(name in METHODS, what="preset", got=name, expected=f"one of {', '.join(METHODS)}", do="choose one")
    method = METHODS[name]
    return replace(
        config,
        aggregator=replace(config.aggregator, kind=method.aggregator),
        schedule=replace(config.schedule, kind=method.schedule),
        terms=method.terms,
        summaries_as_captions=method.summaries_as_captions,
        start=method.start,
    )


class ChildBatch(NamedTuple):
    """clip_BTI: frames. frame_mask_BT: bool, True = real. caption_BX: text features, or tokens, of clips' captions."""

    clip_BTI: Tensor
    frame_mask_BT: Tensor
    caption_BX: Tensor


class ParentBatch(NamedTuple):
    """Clips and captions of each video, in time order, not aligned with each other, and its summary.

    Masks: bool, True = real; a clip without a real frame counts as padding.
    """

    clips_VCTI: Tensor
    frame_mask_VCT: Tensor
    clip_mask_VC: Tensor
    captions_VCX: Tensor
    caption_mask_VC: Tensor
    summary_VX: Tensor


class ChildOutput(NamedTuple):
    """Projected, not normalised; row b of both belongs together."""

    video_BE: Tensor
    text_BE: Tensor


class ParentOutput(NamedTuple):
    """Aggregated clips, aggregated captions (without meaning for a video without captions), projected summary."""

    video_VE: Tensor
    captions_VE: Tensor
    summary_VE: Tensor


class TextEncoder(Protocol):
    """What a text encoder must offer, on frozen features (X,) or on tokens (L,)."""

    def __call__(self, text_BX: Tensor) -> Tensor:
        """(B, ...) → (B, E), not normalised."""
        ...


class FrozenTextEncoder(nn.Module):
    """ReLU → Linear on the vectors of a frozen text tower, or Linear → GELU → Linear.

    Args:
        d_text: width X of the vectors.
        dim: width E.
        hidden: width inside of the second; None: the first.
    """

    def __init__(self, d_text: int, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        if hidden is None:
            self.project = nn.Sequential(nn.ReLU(), nn.Linear(d_text, dim))
        else:
            self.project = nn.Sequential(nn.Linear(d_text, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, text_BX: Tensor) -> Tensor:
        """(B, X) of any float type → (B, E)."""
        projected_BE: Tensor = self.project(text_BX.float())
        return projected_BE


class TowerTextEncoder(nn.Module):
    """A text tower that is trained, and a head on its vectors.

    Args:
        tower: tokens (B, L) → (B, X).
        head: (B, X) → (B, E).
    """

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, text_BL: Tensor) -> Tensor:
        """Token ids (B, L) → (B, E)."""
        projected_BE: Tensor = self.head(self.tower(text_BL))
        return projected_BE


class HierVL(nn.Module):
    """See the module's docstring.

    Args:
        clip_encoder: satisfies `ClipEncoder`.
        text_encoder: satisfies `TextEncoder`; it reads captions and summaries.
        aggregator: (V, C, E) and bool (V, C) → (V, E); it serves clips and captions.

    Source: Ashutosh et al. 2023 (HierVL), sections on the child and the parent level.
    """

    def __init__(self, clip_encoder: nn.Module, text_encoder: nn.Module, aggregator: nn.Module) -> None:
        super().__init__()
        self.clip_encoder = clip_encoder
        self.text_encoder = text_encoder
        self.aggregator = aggregator

    def forward(self, batch: ChildBatch | ParentBatch, level: Level) -> ChildOutput | ParentOutput:
        """All that a step of `level` needs, in one call, so that DDP sees one forward pass.

        Args:
            batch: `ChildBatch` for "child", `ParentBatch` for "parent".
            level: from `ScheduleConfig.levels`.

        Raises:
            UserError: a batch of the other level.
        """
        if level == "child" and isinstance(batch, ChildBatch):
            return ChildOutput(
                self.clip_encoder(batch.clip_BTI, batch.frame_mask_BT), self.embed_text(batch.caption_BX)
            )
        if level == "parent" and isinstance(batch, ParentBatch):
            return ParentOutput(
                video_VE=self.embed_video(batch.clips_VCTI, batch.frame_mask_VCT, batch.clip_mask_VC),
                captions_VE=self.embed_captions(batch.captions_VCX, batch.caption_mask_VC),
                summary_VE=self.embed_text(batch.summary_VX),
            )
        raise UserError(
            what=f"batch of level '{level}'",
            got=type(batch).__name__,
            expected="ChildBatch for child, ParentBatch for parent",
            do="take the batch from the loader of that level",
        )

    def embed_video(self, clips_VCTI: Tensor, frame_mask_VCT: Tensor, clip_mask_VC: Tensor) -> Tensor:
        """Clips (V, C, T, ...) of each video → one vector (V, E), not normalised."""
        frame_mask_VCT = frame_mask_VCT & clip_mask_VC[..., None]
        clips_KE: Tensor = self.clip_encoder(clips_VCTI.flatten(0, 1), frame_mask_VCT.flatten(0, 1))
        aggregated_VE: Tensor = self.aggregator(clips_KE.reshape(*clip_mask_VC.shape, -1), frame_mask_VCT.any(2))
        return aggregated_VE

    def embed_captions(self, captions_VCX: Tensor, caption_mask_VC: Tensor) -> Tensor:
        """Captions (V, C, X) of each video → one vector (V, E), not normalised."""
        texts_KE = self.embed_text(padded(captions_VCX, caption_mask_VC).flatten(0, 1))
        aggregated_VE: Tensor = self.aggregator(texts_KE.reshape(*caption_mask_VC.shape, -1), caption_mask_VC)
        return aggregated_VE

    def embed_text(self, text_BX: Tensor) -> Tensor:
        """Captions or summaries (B, X) → (B, E), not normalised."""
        projected_BE: Tensor = self.text_encoder(text_BX)
        return projected_BE


def build_hiervl(config: HierVLConfig, d_in: int, d_text: int) -> HierVL:
    """The model on extracted features and frozen text vectors.

    Args:
        config: sizes.
        d_in: width of the features of a frame, all encoders together.
        d_text: width of the text vectors.

    Raises:
        UserError: a width below 1, or one that the number of heads does not divide.
    """
    for name, value in (("d_in", d_in), ("d_text", d_text)):
        require(value >= 1, what=name, got=value, expected="1 or more", do="check the store's encoders")
    return HierVL(
        build_clip_encoder(config.clip, d_in, config.dim),
        FrozenTextEncoder(d_text, config.dim, config.text_hidden),
        build_aggregator(config.aggregator, config.dim),
    )
