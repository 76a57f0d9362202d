"""Temporal localisation: a linear probe on frozen rows, its proposals, and the official figures beside floor and
chance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.linear_probe import LinearProbe, ProbeConfig, choose_probe, fit_linear_probe
from hvlm.metrics.localisation import (
    DetectionResult,
    Segments,
    average_recall,
    evaluate_detection,
    proposal_auc,
    segments_of,
    top_1_overlap,
)
from hvlm.metrics.proposals import VideoSegments, random_segments, whole_video_segments
from pipelines.evaluation.classification_group import vocabulary
from pipelines.evaluation.hierarchical_vlm.labels import row_labels, true_segments
from pipelines.evaluation.hierarchical_vlm.records import LocalisedVideo, VideoRecord
from pipelines.evaluation.metric_table import KINDS, Absent, GroupResult, rows_of
from pipelines.evaluation.parts import Parts

_HEADLINES = ("average_map", "map_at_tiou_0_5")
# Random segments per video for the chance row, as many as a busy video has proposals.
_CHANCE_SEGMENTS = 20


def fit_frame_probes(
    parts: Parts[VideoRecord], config: ProbeConfig
) -> tuple[dict[str, LinearProbe], list[str]] | Absent:
    """Return a multinomial probe with a background class per kind of features, and the class names; or why there is
    none.

    The penalty is chosen by the mean log-likelihood of dev rows.
    """
    names = vocabulary([*parts.train, *parts.dev, *parts.report])
    for part, records in (("train", parts.train), ("dev", parts.dev), (parts.split, parts.report)):
        if not any(record.annotations for record in records):
            return Absent(f"{parts.split}/frame/localisation/*", f"no video of {part} carries annotated segments")
    train_labels, dev_labels = (
        np.concatenate([row_labels(r, names) for r in part]) for part in (parts.train, parts.dev)
    )
    probes = {}
    for kind in KINDS:
        train, dev = (_rows(records, kind) for records in (parts.train, parts.dev))

        def fit(l2: float, train: NDArray[Any] = train) -> LinearProbe:
            return fit_linear_probe(
                train,
                train_labels,
                num_classes=len(names) + 1,
                l2=l2,
                kind="multinomial",
                max_iterations=config.max_iterations,
            )

        def dev_score(probe: LinearProbe, dev: NDArray[Any] = dev) -> float:
            likelihood = probe.probabilities(dev)[np.arange(len(dev)), dev_labels]
            return float(np.mean(np.log(np.maximum(likelihood, 1e-12))))

        probes[kind], _ = choose_probe(fit, dev_score, config.l2_grid)
    return probes, names


def localisation_group(
    parts: Parts[VideoRecord],
    found: Sequence[LocalisedVideo],
    names: list[str],
    video_probability: dict[str, NDArray[np.float64]],
    seed: int,
) -> GroupResult:
    """Return the localisation metrics of one split.

    Args:
        parts: videos; `parts.report` is what is scored.
        found: proposals of every reported video, by kind.
        names: the classes of the proposals.
        video_probability: per kind (N, C), the label probe's probabilities of the reported videos, for the whole-video
            floor.
        seed: of the chance segments.
    """
    truth = true_segments(parts.report, names)
    by_key = {video.key: video.segments for video in found}
    random = np.random.default_rng(seed)
    columns = {kind: _segments([(r.key, by_key[r.key][kind]) for r in parts.report]) for kind in KINDS}
    whole = [
        (r.key, whole_video_segments(video_probability["raw"][i], r.duration_s)) for i, r in enumerate(parts.report)
    ]
    columns["floor"] = _segments(whole)
    columns["chance"] = _segments(
        [(r.key, random_segments(len(names), r.duration_s, _CHANCE_SEGMENTS, random)) for r in parts.report]
    )
    detections = {column: evaluate_detection(segments, truth) for column, segments in columns.items()}
    values = {column: _values(detections[column], segments, truth) for column, segments in columns.items()}
    note = "linear probe on frozen rows; floor = the whole video with the raw label probe's scores; check_status off"
    rows = [
        row
        for name in values["ours"]
        for row in rows_of(
            {column: {name: known[name]} for column, known in values.items()},
            f"{parts.split}/frame/localisation",
            count=len(truth),
            unit="segments",
            note=f"{name} is not a detection metric" if name in ("hit_at_tiou_0_5", "mean_tiou") else note,
            headline=name in _HEADLINES,
        )
    ]
    details = {"classes": names, "ap": {c: _per_class(d, len(names)) for c, d in detections.items()}, "found": by_key}
    return GroupResult(rows, [], details)


def _values(detection: DetectionResult, segments: Segments, truth: Segments) -> dict[str, float]:
    recall = average_recall(segments, truth)
    hit, mean_tiou = top_1_overlap(segments, truth)
    return {
        "average_map": detection.average_map(),
        "map_at_tiou_0_5": detection.mean_ap(0.5),
        "map_at_tiou_0_75": detection.mean_ap(0.75),
        "map_at_tiou_0_95": detection.mean_ap(0.95),
        "average_recall_at_1": recall[1],
        "average_recall_at_10": recall[10],
        "average_recall_at_100": recall[100],
        "proposal_auc": proposal_auc(segments, truth),
        "hit_at_tiou_0_5": hit,
        "mean_tiou": mean_tiou,
    }


def _per_class(detection: DetectionResult, num_classes: int) -> NDArray[np.float64]:
    """Mean over thresholds of every class of the vocabulary, NaN for one that the split does not have."""
    per_class = np.full(num_classes, np.nan)
    per_class[detection.classes] = detection.ap_HC.mean(axis=0)
    return per_class


def _segments(videos: Sequence[tuple[str, VideoSegments]]) -> Segments:
    return segments_of(
        [
            (key, int(label), float(span[0]), float(span[1]), float(score))
            for key, found in videos
            for label, span, score in zip(found.label_N, found.span_N2, found.score_N, strict=True)
        ]
    )


def _rows(records: Sequence[VideoRecord], kind: str) -> NDArray[np.float64]:
    return np.concatenate([record.kinds[kind].rows_ND for record in records]).astype(np.float64)
