"""Temporal localisation by the official ActivityNet rule, average recall of proposals, and two figures that are not
detection metrics.

The toolkit's list of blocked videos is off-line, so nothing is blocked ("check_status off").
Ties: predictions of equal score are matched in the order of (video, start, end) and enter precision and recall
    together, so the value does not depend on the order of the rows. Shapes: N predictions, M true segments, H
    thresholds, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.average_precision import interpolated_average_precision
from hvlm.metrics.classification import mean_of_present

Floats = NDArray[np.float64]
OFFICIAL_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True, slots=True)
class Segments:
    """Rows of (video, class, [start_s, end_s)); `score_N` is confidence for predictions and 1 for the truth."""

    video_N: NDArray[np.str_]
    label_N: NDArray[np.int64]
    span_N2: Floats
    score_N: Floats

    def __post_init__(self) -> None:
        count = len(self.video_N)
        if self.label_N.shape != (count,) or self.span_N2.shape != (count, 2) or self.score_N.shape != (count,):
            shapes = (self.video_N.shape, self.label_N.shape, self.span_N2.shape, self.score_N.shape)
            raise ValueError(f"rows differ: video, label, span, score have shapes {shapes}")
        if np.isnan(self.score_N).any() or np.isnan(self.span_N2).any():
            raise ValueError("a score or a span is NaN")

    def __len__(self) -> int:
        return len(self.video_N)

    def take(self, index: NDArray[np.generic]) -> "Segments":
        """Return the rows that an index or a mask selects."""
        return Segments(self.video_N[index], self.label_N[index], self.span_N2[index], self.score_N[index])


def segments_of(rows: list[tuple[str, int, float, float, float]]) -> Segments:
    """Return `Segments` of (video, class, start_s, end_s, score) rows; an empty list is allowed."""
    return Segments(
        np.array([row[0] for row in rows], dtype=np.str_),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2:4] for row in rows], dtype=np.float64).reshape(-1, 2),
        np.array([row[4] for row in rows], dtype=np.float64),
    )


def temporal_iou(span_N2: Floats, span_M2: Floats) -> Floats:
    """Return (N, M) intersection over union in [0, 1]; 0 when both are empty."""
    start = np.maximum(span_N2[:, None, 0], span_M2[None, :, 0])
    end = np.minimum(span_N2[:, None, 1], span_M2[None, :, 1])
    shared = np.clip(end - start, 0.0, None)
    union = (span_N2[:, 1] - span_N2[:, 0])[:, None] + (span_M2[:, 1] - span_M2[:, 0])[None, :] - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """AP per threshold and class (classes of the truth only), with the means."""

    thresholds: tuple[float, ...]
    classes: NDArray[np.int64]
    ap_HC: Floats

    def mean_ap(self, threshold: float) -> float:
        """Return the mean over classes at one of the thresholds; NaN without truth."""
        return mean_of_present(self.ap_HC[self.thresholds.index(threshold)])

    def average_map(self) -> float:
        """Return the mean over classes and thresholds; NaN without truth."""
        return mean_of_present(self.ap_HC.ravel())


def evaluate_detection(
    predictions: Segments, truth: Segments, thresholds: tuple[float, ...] = OFFICIAL_THRESHOLDS
) -> DetectionResult:
    """Return interpolated AP per threshold and class.

    Per class, predictions in descending score are matched greedily to the still unmatched true segment of the same
    video and class with the highest tIoU that is at least the threshold; each true segment is matched once per
    threshold. The rest, later duplicates and predictions in videos without that class included, are false positives.
    Predictions of classes without truth are left out.

    Source: ActivityNet evaluation toolkit, `compute_average_precision_detection`.
    """
    classes = np.unique(truth.label_N)
    ap_HC = np.full((len(thresholds), len(classes)), np.nan)
    for column, label in enumerate(classes):
        wanted = truth.take(truth.label_N == label)
        found = _ranked(predictions.take(predictions.label_N == label))
        hits_HN = match_greedily(found, wanted, thresholds)
        for row in range(len(thresholds)):
            ap_HC[row, column] = interpolated_average_precision(found.score_N, hits_HN[row], len(wanted))
    return DetectionResult(thresholds, classes, ap_HC)


def match_greedily(found: Segments, wanted: Segments, thresholds: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return (H, N) True where prediction n, taken in the order given, claims a true segment of its video. Labels are
    not looked at.
    """
    hits_HN = np.zeros((len(thresholds), len(found)), dtype=bool)
    truth_of: dict[str, NDArray[np.int64]] = {
        video: np.flatnonzero(wanted.video_N == video) for video in np.unique(wanted.video_N).tolist()
    }
    free_HM = np.ones((len(thresholds), len(wanted)), dtype=bool)
    for n, video in enumerate(found.video_N.tolist()):
        candidates = truth_of.get(video)
        if candidates is None:
            continue
        iou = temporal_iou(found.span_N2[n : n + 1], wanted.span_N2[candidates])[0]
        by_iou = np.argsort(-iou, kind="stable")
        for h, threshold in enumerate(thresholds):
            for m in by_iou:
                if iou[m] < threshold:
                    break
                if free_HM[h, candidates[m]]:
                    free_HM[h, candidates[m]] = False
                    hits_HN[h, n] = True
                    break
    return hits_HN


def average_recall(
    predictions: Segments,
    truth: Segments,
    ks: tuple[int, ...] = (1, 10, 100),
    thresholds: tuple[float, ...] = OFFICIAL_THRESHOLDS,
) -> dict[int, float]:
    """Return {k: AR@k}: share of true segments covered by any of their video's k best predictions, labels ignored, mean
    over thresholds.

    k counts per video (the toolkit varies the mean number per video instead). NaN without truth.
    """
    if len(truth) == 0:
        return dict.fromkeys(ks, float("nan"))
    limits = np.array(thresholds)
    covered = {k: np.zeros((len(limits), len(truth)), dtype=bool) for k in ks}
    ranked = _ranked(predictions)
    for video in np.unique(truth.video_N):
        wanted, rows = np.flatnonzero(truth.video_N == video), np.flatnonzero(ranked.video_N == video)
        if len(rows) == 0:
            continue
        iou_NM = temporal_iou(ranked.span_N2[rows], truth.span_N2[wanted])
        for k in ks:
            covered[k][:, wanted] = iou_NM[:k].max(axis=0)[None, :] >= limits[:, None]
    return {k: float(covered[k].mean()) for k in ks}


def proposal_auc(predictions: Segments, truth: Segments, max_proposals: int = 100) -> float:
    """Return the mean of AR@k over k = 1 ... `max_proposals`; NaN without truth."""
    curve = average_recall(predictions, truth, tuple(range(1, max_proposals + 1)))
    return float(np.mean(list(curve.values())))


def top_1_overlap(predictions: Segments, truth: Segments) -> tuple[float, float]:
    """Return (hit_at_tiou_0_5, mean_tiou) of each true segment with its video's best-scored prediction, labels ignored.

    Not detection metrics: they ignore classes and false positives. A video without predictions counts 0. NaN without
    truth.
    """
    if len(truth) == 0:
        return float("nan"), float("nan")
    ranked = _ranked(predictions)
    videos, first = np.unique(ranked.video_N, return_index=True)
    best = dict(zip(videos.tolist(), first.tolist(), strict=True))
    overlap = np.zeros(len(truth))
    for m, video in enumerate(truth.video_N.tolist()):
        if video in best:
            overlap[m] = temporal_iou(ranked.span_N2[best[video] : best[video] + 1], truth.span_N2[m : m + 1])[0, 0]
    return float((overlap >= 0.5).mean()), float(overlap.mean())


def _ranked(segments: Segments) -> Segments:
    """Return the rows by descending score; equal scores by (video, start, end)."""
    order = np.lexsort((segments.span_N2[:, 1], segments.span_N2[:, 0], segments.video_N, -segments.score_N))
    return segments.take(order)
