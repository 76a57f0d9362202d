"""From annotated rows to samples of two levels: which captions a summary covers, and which clips, frames and captions a
sample of it takes.

Nothing here reads a feature. Every draw comes from a generator made of (seed, epoch, key of the sample), so it is the
same on any number of workers and after any restart; without a generator it is the middle one (evaluation).

Shapes: R rows of a video's features, C clips or captions of a sample, T frames of a clip.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.config import Config, require
from hvlm.video.spans import meets_spans

# Length in seconds of the random clip that stands for a summary in the flat baseline.
SHORT_CLIP_S = (1.5, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentSamplingConfig(Config):
    """`num_clips` windows of at most `window_s`, the last of which ends `end_margin_s` before the segment's end, with
    `num_frames` frames each, and as many captions. `cycle_captions`: fewer captions are repeated in place of padding
    (for comparison only)."""

    num_clips: int = 16
    num_frames: int = 4
    window_s: float = 8.0
    end_margin_s: float = 1.0
    cycle_captions: bool = False

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_frames"):
            value = getattr(self, name)
            require(value >= 1, what=f"sampling.{name}", got=value, expected="1 or more", do=f"raise {name}")
        require(self.window_s > 0, what="sampling.window_s", got=self.window_s, expected="above 0", do="e.g. 8.0")
        require(
            self.end_margin_s >= 0,
            what="sampling.end_margin_s",
            got=self.end_margin_s,
            expected="0 or more",
            do="e.g. 1.0",
        )


class TimedKey(NamedTuple):
    """Where a caption or a summary belongs: a part of a video, as one annotator's pass saw it."""

    video_id: str
    start_s: float
    end_s: float
    pass_id: str


class FrameDraw(NamedTuple):
    """rows_T: int64, positions among a video's feature rows, in time order; mask_T: bool, False where there is none."""

    rows_T: NDArray[np.int64]
    mask_T: NDArray[np.bool_]


class ParentDraw(NamedTuple):
    """rows_CT, frame_mask_CT: as `FrameDraw` for each clip. captions_C: int64, positions among the sample's captions;
    caption_mask_C: bool. What is masked has position 0."""

    rows_CT: NDArray[np.int64]
    frame_mask_CT: NDArray[np.bool_]
    captions_C: NDArray[np.int64]
    caption_mask_C: NDArray[np.bool_]


def sample_generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of one sample in one epoch."""
    digest = hashlib.sha256(f"{seed}:{epoch}:{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def build_hierarchy(captions: Sequence[TimedKey], summaries: Iterable[TimedKey]) -> dict[TimedKey, NDArray[np.int64]]:
    """Captions that lie fully inside each summary's segment, of the same video and the same pass.

    Args:
        captions: in any order.
        summaries: equal keys are one entry: what they cover is the same, whatever their sentences say.

    Returns:
        summary → positions in `captions`, sorted by start, then end, then position; empty where it covers none.
    """
    by_pass: dict[tuple[str, str], list[int]] = {}
    for i in sorted(range(len(captions)), key=lambda i: (captions[i].start_s, captions[i].end_s, i)):
        by_pass.setdefault((captions[i].video_id, captions[i].pass_id), []).append(i)
    ordered = {group: np.array(members, np.int64) for group, members in by_pass.items()}
    starts = {group: np.array([captions[i].start_s for i in members]) for group, members in ordered.items()}
    ends = {group: np.array([captions[i].end_s for i in members]) for group, members in ordered.items()}
    hierarchy = {}
    for summary in summaries:
        group = (summary.video_id, summary.pass_id)
        members = ordered.get(group, np.empty(0, np.int64))
        if len(members):
            first, stop = np.searchsorted(starts[group], [summary.start_s, summary.end_s], side="left")
            inside = slice(first, max(first, stop))
            members = members[inside][ends[group][inside] <= summary.end_s]
        hierarchy[summary] = members
    return hierarchy


def clip_windows(span_s: tuple[float, float], config: ParentSamplingConfig) -> NDArray[np.float64]:
    """`num_clips` equally long windows, evenly spaced, all inside the segment; float64 (C, 2), seconds.

    A segment shorter than window and margin gives the same window many times.

    Raises:
        UserError: a segment without length.
    """
    start_s, end_s = span_s
    _require_length(span_s)
    length_s = min(config.window_s, end_s - start_s)
    room_s = max(0.0, end_s - start_s - length_s - config.end_margin_s)
    starts_C = start_s + np.linspace(0.0, room_s, config.num_clips)
    # The sum may come out a rounding beyond the segment's end.
    return np.stack([starts_C, np.minimum(starts_C + length_s, end_s)], axis=1)


def short_clip(span_s: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    """A random clip of 1.5 to 3 s inside the segment (the whole of a shorter one): the flat baseline's for a summary.

    Raises:
        UserError: a segment without length.
    """
    _require_length(span_s)
    length_s = rng.uniform(*SHORT_CLIP_S)
    start_s = span_s[0] + rng.random() * max(0.0, span_s[1] - span_s[0] - length_s)
    return start_s, min(start_s + length_s, span_s[1])


def rows_in_span(times_s: NDArray[np.float64], row_s: float, span_s: tuple[float, float]) -> NDArray[np.int64]:
    """Positions of the feature rows that share more than an instant with the span, in time order.

    Args:
        times_s: (R,), start of each row, ascending.
        row_s: how long a row stands for the video (its stride, or the length of a C3D window).
        span_s: half-open seconds.
    """
    return np.asarray(np.flatnonzero(meets_spans(times_s, row_s, [span_s])), dtype=np.int64)


def draw_frames(rows_R: NDArray[np.int64], num_frames: int, rng: np.random.Generator | None) -> FrameDraw:
    """One row of each of `num_frames` equal bins of a clip's rows: a random one, or the middle one without `rng`.

    A clip of fewer rows than bins repeats rows: at one or two frames per second that is the rule for short clips.

    Args:
        rows_R: the clip's rows (`rows_in_span`); empty gives a clip that is all padding, which the caller counts.
        num_frames: T.
        rng: of the sample.
    """
    if len(rows_R) == 0:
        return FrameDraw(np.zeros(num_frames, np.int64), np.zeros(num_frames, np.bool_))
    edges = np.arange(num_frames + 1) * len(rows_R) // num_frames
    first_T = edges[:-1]
    last_T = np.maximum(first_T, edges[1:] - 1)
    drawn_T = (first_T + last_T) // 2 if rng is None else rng.integers(first_T, last_T, endpoint=True)
    return FrameDraw(rows_R[drawn_T], np.ones(num_frames, np.bool_))


def draw_captions(
    num_captions: int, config: ParentSamplingConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Positions of the captions of a sample, in order, and which of them are real: (C,) each.

    At least as many captions as places: a random subset, or evenly spaced ones without `rng`. Fewer: all, then padding
    (or all of them again and again with `cycle_captions`). None: padding alone; such a sample takes no part in the loss
    terms with captions.
    """
    places = np.arange(config.num_clips)
    if num_captions >= config.num_clips:
        if rng is None:
            return (2 * places + 1) * num_captions // (2 * config.num_clips), np.ones(config.num_clips, np.bool_)
        chosen = rng.choice(num_captions, config.num_clips, replace=False)
        return np.sort(chosen), np.ones(config.num_clips, np.bool_)
    if config.cycle_captions and num_captions > 0:
        return places % num_captions, np.ones(config.num_clips, np.bool_)
    mask_C = places < num_captions
    return np.where(mask_C, places, 0), mask_C


def draw_parent(
    clips: Sequence[NDArray[np.int64]],
    num_captions: int,
    config: ParentSamplingConfig,
    rng: np.random.Generator | None,
) -> ParentDraw:
    """What a parent sample takes: frames of every clip, and captions; clips and captions are not aligned.

    Args:
        clips: rows of each of the `num_clips` windows (`rows_in_span` of `clip_windows`).
        num_captions: of the segment (`build_hierarchy`).
        config: sizes.
        rng: of the sample; None for evaluation.
    """
    frames = [draw_frames(rows_R, config.num_frames, rng) for rows_R in clips]
    captions_C, caption_mask_C = draw_captions(num_captions, config, rng)
    return ParentDraw(
        np.stack([draw.rows_T for draw in frames]),
        np.stack([draw.mask_T for draw in frames]),
        captions_C,
        caption_mask_C,
    )


class SceneBins:
    """Captions of one video and one bin of time: each other's hard negatives (off unless asked for).

    Args:
        video_ids: of each caption.
        times_s: of each caption.
        bin_s: length of a bin.
    """

    def __init__(self, video_ids: Sequence[str], times_s: Sequence[float], bin_s: float = 60.0) -> None:
        require(bin_s > 0, what="scene.bin_s", got=bin_s, expected="above 0", do="e.g. 60.0")
        self._bins = [(video, int(time // bin_s)) for video, time in zip(video_ids, times_s, strict=True)]
        self._members: dict[tuple[str, int], list[int]] = {}
        for i, key in enumerate(self._bins):
            self._members.setdefault(key, []).append(i)

    def draw(self, caption: int, rng: np.random.Generator) -> int | None:
        """Another caption of the same video and bin; None where `caption` is alone there."""
        others = [i for i in self._members[self._bins[caption]] if i != caption]
        return others[int(rng.integers(len(others)))] if others else None


def _require_length(span_s: tuple[float, float]) -> None:
    require(
        span_s[0] < span_s[1],
        what="segment",
        got=list(span_s),
        expected="start before end, in seconds",
        do="correct or leave out the annotation",
    )
