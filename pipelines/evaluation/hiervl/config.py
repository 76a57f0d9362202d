"""Configuration of an evaluation of HierVL."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.metrics.anticipation_head import AnticipationHeadConfig
from hvlm.metrics.text_head import TextHeadConfig
from pipelines.evaluation.config import EvaluateConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicConfig(Config):
    """Files of EPIC-KITCHENS-100 multi-instance retrieval: the clips, the distinct sentences, the relevancy pickle."""

    clips_uri: str
    sentences_uri: str
    relevancy_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CharadesConfig(Config):
    """Files of Charades or Charades-Ego: class names, and the official table of the videos that are scored.

    `train_clips_uri`: the table of clips that a small head is fitted on; without it only zero-shot is measured.
    `num_frames`: of a video, evenly, and of a clip; at most as many as the clip encoder reads.
    """

    classes_uri: str
    videos_uri: str
    train_clips_uri: str | None = None
    head: TextHeadConfig = field(default_factory=TextHeadConfig)
    num_frames: int = 16

    def __post_init__(self) -> None:
        require(
            self.num_frames >= 1, what="charades.num_frames", got=self.num_frames, expected="1 or more", do="e.g. 16"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LongVideoConfig(Config):
    """Tables of long videos with one label each, to fit a probe on and to report on."""

    train_uri: str
    test_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnticipationConfig(Config):
    """Files of Ego4D long-term anticipation, to fit the head on and to report on.

    Args:
        train_uri, test_uri: tables of actions.
        num_seen, num_future, num_sequences: actions before and after, and how many guesses of the latter count.
        head: how it is fitted.
    """

    train_uri: str
    test_uri: str
    num_seen: int = 4
    num_future: int = 20
    num_sequences: int = 5
    head: AnticipationHeadConfig = field(default_factory=AnticipationHeadConfig)

    def __post_init__(self) -> None:
        for name in ("num_seen", "num_future", "num_sequences"):
            value = getattr(self, name)
            require(value >= 1, what=f"anticipation.{name}", got=value, expected="1 or more", do=f"raise {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HierVLEvaluateConfig(EvaluateConfig, Config):
    """See `EvaluateConfig` for the rest. A benchmark is measured when its files are named, on the videos of the split.

    Args:
        ego_mcq_uri: EgoMCQ's json. summary_mcq_uri: SummaryMCQ's.
        epic, charades, long_video, anticipation: files of further benchmarks.
        num_map_points: captions' clips, and videos, of the embedding map, evenly over the split; 0 draws none.
    """

    TRAINED_AS: ClassVar[tuple[str, ...]] = ("hiervl",)

    system: Literal["hiervl"] = "hiervl"
    ego_mcq_uri: str | None = None
    summary_mcq_uri: str | None = None
    epic: EpicConfig | None = None
    charades: CharadesConfig | None = None
    long_video: LongVideoConfig | None = None
    anticipation: AnticipationConfig | None = None
    num_map_points: int = 500

    def __post_init__(self) -> None:
        EvaluateConfig.__post_init__(self)  # super() does not find the class that slots=True makes anew
        self.require_least(num_map_points=0)
