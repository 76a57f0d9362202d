"""Cut a video into segments, the parts that one decode handles: memory does not grow with the video's length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hvlm.config import require
from hvlm.video.index import VideoIndex
from hvlm.video.sampling import SAME_INSTANT_S, FrameSamples, sample_frames
from hvlm.video.spans import meets_spans, merge_spans
from hvlm.video.views import FrameView, num_rows


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """The rows of one view that a segment makes.

    Args:
        row_start: number of the first row among the rows of the whole video.
        num_rows: how many rows; may be 0.
        frame_index: int64 (F,), frames that the rows need, in time order; a clip's tail reaches past the segment;
            repeated where the sampling repeats a frame or pads a short video.
        frame_pts: int64 (F,), their pts in the stream's time base.
        row_time_s: float64 (num_rows,), pts in seconds since the first frame of the first frame of each row.
    """

    row_start: int
    num_rows: int
    frame_index: npt.NDArray[np.int64]
    frame_pts: npt.NDArray[np.int64]
    row_time_s: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One decode task.

    Args:
        segment_index: 0 .. num_segments - 1, without holes.
        span_s: half-open seconds of row start times.
        views: the rows of each view.
        seek_index: int64 (K,), frames at which decoding may start, among those useful for this segment.
        seek_pts: int64 (K,), their pts.
        counted: pts of this file cannot be trusted at the decoder: frames are counted from the start of the file.
    """

    segment_index: int
    num_segments: int
    span_s: tuple[float, float]
    views: dict[str, ViewPlan]
    seek_index: npt.NDArray[np.int64]
    seek_pts: npt.NDArray[np.int64]
    counted: bool


def plan_segments(
    index: VideoIndex, views: Mapping[str, FrameView], segment_s: float, spans_s: Sequence[Sequence[float]] = ()
) -> list[SegmentPlan]:
    """The segments of a video; how many there are and where they lie depends on (index, segment_s) alone.

    A row belongs to the segment in which its nominal start time lies. A segment may have no rows: its number must not
    depend on which views are asked for, or features staged by one encoder would not fit those of another. Concatenated
    over segments the rows of each view are those of the whole video.

    Args:
        spans_s: annotated (start_s, end_s). A view that samples `spans` has only the rows whose time, from the start of
            the row for the length of its clip, meets one of them; without any it has no rows.
    """
    require(segment_s > 0, what="segment_s", got=segment_s, expected="above 0 seconds", do="set e.g. segment_s: 60")
    samples = {name: sample_frames(index, view.sampling) for name, view in views.items()}
    count = max(1, math.ceil((index.duration_s - SAME_INSTANT_S) / segment_s))
    starts = {name: _row_starts(samples[name], view, spans_s) for name, view in views.items()}
    cells = {
        name: np.minimum(_cells_of_rows(samples[name].time_s[starts[name]], segment_s), count - 1) for name in views
    }
    segments = []
    for number in range(count):
        plans: dict[str, ViewPlan] = {}
        for name, view in views.items():
            first, end = (int(np.searchsorted(cells[name], number, side)) for side in ("left", "right"))
            plans[name] = _plan_view(index, samples[name], view, first, starts[name][first:end])
        seeks = _useful_seeks(index, plans)
        span_s = (number * segment_s, min((number + 1) * segment_s, index.duration_s))
        segments.append(SegmentPlan(number, count, span_s, plans, seeks, index.pts[seeks], index.counted))
    return segments


def _row_starts(samples: FrameSamples, view: FrameView, spans_s: Sequence[Sequence[float]]) -> npt.NDArray[np.int64]:
    """Return for each row the number of the sample that it begins with."""
    starts = np.arange(num_rows(len(samples.time_s), view), dtype=np.int64) * view.clip_stride
    if view.sampling.kind != "spans":
        return starts
    clip_s = samples.stride_s * view.clip_frames
    return starts[meets_spans(samples.time_s[starts], clip_s, merge_spans(spans_s))]


def _cells_of_rows(starts_s: npt.NDArray[np.float64], segment_s: float) -> npt.NDArray[np.int64]:
    return np.asarray(np.floor((starts_s + SAME_INSTANT_S) / segment_s), dtype=np.int64)


def _plan_view(
    index: VideoIndex, samples: FrameSamples, view: FrameView, first: int, starts: npt.NDArray[np.int64]
) -> ViewPlan:
    wanted = np.unique(starts[:, None] + np.arange(view.clip_frames, dtype=np.int64))
    # A video shorter than one clip: its last frame is repeated until the clip is full.
    frames = samples.frame_index[np.minimum(wanted, len(samples.frame_index) - 1)]
    row_frames = samples.frame_index[np.minimum(starts, len(samples.frame_index) - 1)]
    return ViewPlan(first, len(starts), frames, index.pts[frames], index.times_s[row_frames])


def _useful_seeks(index: VideoIndex, plans: Mapping[str, ViewPlan]) -> npt.NDArray[np.int64]:
    """Seek points from the last one not after the first wanted frame to the last wanted frame."""
    wanted = np.concatenate([plan.frame_index for plan in plans.values()])
    if index.counted:
        return np.zeros(0, np.int64)
    seeks = np.flatnonzero(index.keyframes)
    if len(wanted) == 0:
        return seeks[:0]
    first = max(0, int(np.searchsorted(seeks, wanted.min(), "right")) - 1)
    return seeks[first : int(np.searchsorted(seeks, wanted.max(), "right"))]
