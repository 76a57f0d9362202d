"""Parts of videos that groups of metrics ask vectors of, and the vectors of a video that answer them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.data.activitynet import SpanS

Floats32 = NDArray[np.float32]


class Place(NamedTuple):
    """A part of a video, in seconds.

    `num_frames`: as a clip of so many frames; None: as a segment, whose clips are aggregated. A clip may end at
    infinity, which is the video's end.
    """

    video_id: str
    start_s: float
    end_s: float
    num_frames: int | None = None

    @property
    def span_s(self) -> SpanS:
        """(start, end)."""
        return self.start_s, self.end_s


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoVectors:
    """One embedded video.

    Args:
        span_s: what the sample covers. captions, summary: what the store says of it; each caption has `text` and
            `segment`. annotations, activity: its labels.
        vectors: by kind, not normalised: ours projected into the joint space, raw as the mean of the frames that the
            model read, all encoders side by side. A place without a row of features is missing.
        shuffled_PE: of the whole video, ours: its clips in other orders; None where it has no row of features.
    """

    key: str
    video_id: str
    split: str
    duration_s: float
    num_rows: int
    num_bad_rows: int
    span_s: SpanS
    captions: list[dict[str, Any]] = field(default_factory=list)
    summary: str | None = None
    annotations: list[dict[str, Any]] = field(default_factory=list)
    activity: str | None = None
    vectors: Mapping[str, Mapping[Place, Floats32]]
    shuffled_PE: Floats32 | None = None

    def segment(self) -> Place:
        """Return all of the video as a segment."""
        return Place(self.video_id, *self.span_s)

    def caption_places(self, num_frames: int) -> list[Place]:
        """Return the clip of each caption."""
        spans = [caption["segment"] for caption in self.captions]
        return [Place(self.video_id, start_s, end_s, num_frames) for start_s, end_s in spans]
