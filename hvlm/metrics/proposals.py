"""Segments from per-row class probabilities, Gaussian soft-NMS, and the floors that a localiser has to beat.

Shapes: T rows of one video, C classes, N segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.config import Config, require
from hvlm.metrics.localisation import Segments, segments_of, temporal_iou

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalConfig(Config):
    """How per-row probabilities become segments.

    Args:
        num_thresholds: levels between 0 and a class's peak in the video at which rows are grouped.
        min_peak: a class whose peak probability in the video stays below this gives no segment.
        flank_fraction: share of a segment's length on each side that counts as its surroundings.
        nms_sigma: width of the Gaussian soft-NMS.
        max_per_video: segments kept per video, best first.
    """

    num_thresholds: int = 9
    min_peak: float = 0.02
    flank_fraction: float = 0.25
    nms_sigma: float = 0.5
    max_per_video: int = 100

    def __post_init__(self) -> None:
        require(
            self.num_thresholds >= 1,
            what="proposals.num_thresholds",
            got=self.num_thresholds,
            expected="1 or more",
            do="set e.g. 9",
        )
        require(
            0 <= self.min_peak < 1,
            what="proposals.min_peak",
            got=self.min_peak,
            expected="in [0, 1)",
            do="set e.g. 0.02",
        )
        require(
            self.flank_fraction > 0,
            what="proposals.flank_fraction",
            got=self.flank_fraction,
            expected="above 0",
            do="set e.g. 0.25",
        )
        require(
            self.nms_sigma > 0, what="proposals.nms_sigma", got=self.nms_sigma, expected="above 0", do="set e.g. 0.5"
        )
        require(
            self.max_per_video >= 1,
            what="proposals.max_per_video",
            got=self.max_per_video,
            expected="1 or more",
            do="set e.g. 100",
        )


@dataclass(frozen=True, slots=True)
class VideoSegments:
    """Scored segments of one video, best first."""

    label_N: NDArray[np.int64]
    span_N2: Floats
    score_N: Floats


def row_cells(
    time_s_T: NDArray[np.floating], stride_s: float, clip_s: float, duration_s: float, *, gaps: bool = False
) -> Floats:
    """Return (T, 2) the second-spans that rows stand for: one stride around the middle of the row's clip, clipped to
    the video.

    Neighbouring cells touch; the first reaches back to 0 and the last on to `duration_s` when less than one stride is
    missing. With `gaps` rows were left out: only neighbours within 1.5 strides touch, and no cell reaches further than
    half a stride.
    """
    centre_T = np.asarray(time_s_T, dtype=np.float64) + clip_s / 2
    if len(centre_T) == 0:
        return np.empty((0, 2))
    middle = (centre_T[1:] + centre_T[:-1]) / 2
    first, last = centre_T[0] - stride_s / 2, centre_T[-1] + stride_s / 2
    if not gaps:
        first = 0.0 if first < stride_s else first
        last = duration_s if last > duration_s - stride_s else last
    apart = gaps & (np.diff(centre_T) > 1.5 * stride_s)
    start_T = np.concatenate(([first], np.where(apart, centre_T[1:] - stride_s / 2, middle)))
    end_T = np.concatenate((np.where(apart, centre_T[:-1] + stride_s / 2, middle), [last]))
    cells = np.stack([start_T, end_T], axis=1)
    return np.asarray(np.clip(cells, 0.0, duration_s), dtype=np.float64)


def propose_segments(probability_TC: Floats, cell_T2: Floats, config: ProposalConfig) -> VideoSegments:
    """Return scored segments of every class of one video, after soft-NMS.

    Per class and per level (a share of the class's peak) the runs of rows at or above the level become segments; where
    two cells do not touch, a run and its flanks end. The score is the mean probability inside minus the mean in the
    flanks, so that neither a sliver at the peak nor the whole video wins by default.

    Source: outer-inner contrast of AutoLoc, Shou et al., ECCV 2018, equation 1.
    """
    labels: list[int] = []
    spans: list[tuple[float, float]] = []
    scores: list[float] = []
    part_T = np.concatenate(([0], np.cumsum(cell_T2[1:, 0] > cell_T2[:-1, 1])))
    for label in range(probability_TC.shape[1]):
        for first, last in _runs_of_class(probability_TC[:, label], part_T, config):
            contrast = _contrast(probability_TC[:, label], part_T, (first, last), config.flank_fraction)
            if contrast > 0:
                labels.append(label)
                spans.append((cell_T2[first, 0], cell_T2[last - 1, 1]))
                scores.append(contrast)
    found = VideoSegments(
        np.array(labels, dtype=np.int64), np.array(spans, dtype=np.float64).reshape(-1, 2), np.array(scores)
    )
    return suppress(found, config)


def suppress(found: VideoSegments, config: ProposalConfig) -> VideoSegments:
    """Return what soft-NMS within each class leaves, best first, at most `config.max_per_video`; equal scores by class,
    then by start."""
    kept = []
    for label in np.unique(found.label_N):
        own = found.label_N == label
        span_N2, score_N = soft_nms(
            found.span_N2[own], found.score_N[own], sigma=config.nms_sigma, max_keep=config.max_per_video
        )
        kept.append((np.full(len(score_N), label), span_N2, score_N))
    if not kept:
        return found
    label_N, span_N2, score_N = (np.concatenate(each) for each in zip(*kept, strict=True))
    order = np.lexsort((span_N2[:, 0], label_N, -score_N))[: config.max_per_video]
    return VideoSegments(label_N[order], span_N2[order], score_N[order])


def _runs_of_class(probability_T: Floats, part_T: NDArray[np.int64], config: ProposalConfig) -> list[tuple[int, int]]:
    peak = float(probability_T.max(initial=0.0))
    if peak < config.min_peak or peak == 0.0:
        return []
    runs: set[tuple[int, int]] = set()
    for step in range(1, config.num_thresholds + 1):
        above = probability_T >= peak * step / (config.num_thresholds + 1)
        joined = np.concatenate(([False], above[1:] & above[:-1] & (part_T[1:] == part_T[:-1]), [False]))
        firsts, lasts = np.flatnonzero(above & ~joined[:-1]), np.flatnonzero(above & ~joined[1:])
        runs |= set(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))
    return sorted(runs)


def _contrast(probability_T: Floats, part_T: NDArray[np.int64], run: tuple[int, int], flank_fraction: float) -> float:
    first, last = run
    flank = max(1, round((last - first) * flank_fraction))
    around = np.r_[max(0, first - flank) : first, last : min(last + flank, len(probability_T))]
    outside = probability_T[around[part_T[around] == part_T[first]]]
    return float(probability_T[first:last].mean() - (outside.mean() if len(outside) else 0.0))


def soft_nms(
    span_N2: Floats, score_N: Floats, *, sigma: float = 0.5, min_score: float = 1e-4, max_keep: int = 100
) -> tuple[Floats, Floats]:
    """Return (spans, decayed scores), best first: each pick multiplies the others' scores by exp(-tIoU^2 / sigma).

    Equal scores: the earlier row is picked. Rows whose score falls below `min_score` are dropped.

    Source: Bodla et al., arXiv 1704.04503, equation 3 (Gaussian).
    """
    scores = np.array(score_N, dtype=np.float64)
    kept: list[int] = []
    decayed: list[float] = []
    left = np.ones(len(scores), dtype=bool)
    while left.any() and len(kept) < max_keep:
        best = int(np.argmax(np.where(left, scores, -np.inf)))
        if scores[best] < min_score:
            break
        left[best] = False
        kept.append(best)
        decayed.append(float(scores[best]))
        overlap = temporal_iou(span_N2[best : best + 1], span_N2)[0]
        scores = np.where(left, scores * np.exp(-(overlap**2) / sigma), scores)
    return span_N2[np.array(kept, dtype=np.int64)], np.array(decayed, dtype=np.float64)


def whole_video_segments(probability_C: Floats, duration_s: float) -> VideoSegments:
    """Return one segment [0, duration_s) per class with the video-level score: the floor of a localiser that knows what
    but not when.
    """
    order = np.argsort(-probability_C, kind="stable")
    return VideoSegments(
        order.astype(np.int64),
        np.tile([0.0, duration_s], (len(order), 1)),
        np.asarray(probability_C[order], dtype=np.float64),
    )


def random_segments(num_classes: int, duration_s: float, count: int, random: np.random.Generator) -> VideoSegments:
    """Return `count` segments with uniform random ends, classes and scores: chance."""
    span_N2 = np.sort(random.uniform(0.0, duration_s, size=(count, 2)), axis=1)
    score_N = np.sort(random.uniform(size=count))[::-1].copy()
    return VideoSegments(random.integers(num_classes, size=count), span_N2, score_N)


def segments_of_videos(videos: Sequence[tuple[str, VideoSegments]]) -> Segments:
    """Return the segments of all videos, each named by its key, as the metrics read them."""
    return segments_of(
        [
            (key, int(label), float(span[0]), float(span[1]), float(score))
            for key, found in videos
            for label, span, score in zip(found.label_N, found.span_N2, found.score_N, strict=True)
        ]
    )
