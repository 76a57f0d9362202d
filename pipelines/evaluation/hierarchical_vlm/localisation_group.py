"""Temporal localisation on frozen features, with the official figures beside floor and chance: by a linear probe on
rows and its proposals, and by a localisation head on the nodes of the pyramid.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.linear_probe import LinearProbe, ProbeConfig, choose_probe, fit_linear_probe
from hvlm.metrics.localisation import (
    DetectionResult,
    Segments,
    average_recall,
    evaluate_detection,
    proposal_auc,
    top_1_overlap,
)
from hvlm.metrics.proposals import random_segments, segments_of_videos, whole_video_segments
from pipelines.evaluation.classification_group import vocabulary
from pipelines.evaluation.hierarchical_vlm.labels import row_labels, true_segments
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE, LocalisedVideo, VideoRecord
from pipelines.evaluation.metric_table import KINDS, OURS, RAW, Absent, GroupResult, MetricRow, rows_of
from pipelines.evaluation.parts import Parts, in_drawn_order

LEVELS = {PROBE: "frame", HEAD: "pyramid"}
"""What a method looks at, in the names of its metrics."""

_HEADLINES = ("average_map", "map_at_tiou_0_5")
# Random segments per video for the chance row, as many as a busy video has proposals.
_CHANCE_SEGMENTS = 20
_FLOOR_NOTE = "floor = the whole video with the raw label probe's scores; check_status off"


class HeadFit(NamedTuple):
    """How a localisation head came about: training videos, the step that dev chose, average mAP on dev by steps."""

    num_videos: int
    step: int
    dev: Mapping[int, float]


def within_rows(rows: Sequence[Mapping[str, Any]], length: str, limit: int) -> list[Mapping[str, Any]]:
    """Return so many videos, drawn by their keys, that they have at most `limit` rows together; at least one.

    Args:
        rows: of the manifest. length: the column that says how many rows a video has. limit: of rows.
    """
    drawn: list[Mapping[str, Any]] = []
    left = limit
    for row in in_drawn_order(rows):
        left -= int(row[length])
        if drawn and left < 0:
            break
        drawn.append(row)
    return drawn


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
            where = ", ".join(f"{parts.split}/{level}/localisation/*" for level in LEVELS.values())
            return Absent(where, f"no video of {part} carries annotated segments")
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
    fits: Mapping[str, HeadFit],
    video_probability: dict[str, NDArray[np.float64]],
    seed: int,
) -> GroupResult:
    """Return the localisation metrics of one split.

    Args:
        parts: videos; `parts.report` is what is scored.
        found: segments of every reported video, by method and kind.
        names: the classes of the segments.
        fits: of the localisation head, by kind.
        video_probability: per kind (N, C), the label probe's probabilities of the reported videos, for the whole-video
            floor.
        seed: of the chance segments.
    """
    truth = true_segments(parts.report, names)
    by_key = {video.key: video.segments for video in found}
    random = np.random.default_rng(seed)
    rivals = {
        "floor": [
            (r.key, whole_video_segments(video_probability[RAW][i], r.duration_s)) for i, r in enumerate(parts.report)
        ],
        "chance": [(r.key, random_segments(len(names), r.duration_s, _CHANCE_SEGMENTS, random)) for r in parts.report],
    }
    shared = {column: _measure(segments_of_videos(segments), truth) for column, segments in rivals.items()}
    notes = {
        PROBE: f"linear probe on frozen rows; {_FLOOR_NOTE}",
        HEAD: f"localisation head on the frozen pyramid's nodes (raw: means), fitted on {fits[OURS].num_videos} train "
        f"videos; dev chose step {fits[OURS].step} (raw: {fits[RAW].step}); {_FLOOR_NOTE}",
    }
    rows: list[MetricRow] = []
    details: dict[str, Any] = {"classes": names, "found": by_key}
    for method, level in LEVELS.items():
        columns = {
            kind: _measure(segments_of_videos([(r.key, by_key[r.key][method][kind]) for r in parts.report]), truth)
            for kind in KINDS
        } | shared
        values = {column: measured[1] for column, measured in columns.items()}
        rows += _rows_of(values, f"{parts.split}/{level}/localisation", len(truth), notes[method])
        details[method] = {
            "classes": names,
            "ap": {column: _per_class(measured[0], len(names)) for column, measured in columns.items()},
        }
    details[HEAD]["fit"] = {kind: {"step": fit.step, "dev_average_map": dict(fit.dev)} for kind, fit in fits.items()}
    return GroupResult(rows, [], details)


def _rows_of(values: Mapping[str, Mapping[str, float]], prefix: str, count: int, note: str) -> list[MetricRow]:
    return [
        row
        for name in values[OURS]
        for row in rows_of(
            {column: {name: known[name]} for column, known in values.items()},
            prefix,
            count=count,
            unit="segments",
            note=f"{name} is not a detection metric" if name in ("hit_at_tiou_0_5", "mean_tiou") else note,
            headline=name in _HEADLINES,
        )
    ]


def _measure(segments: Segments, truth: Segments) -> tuple[DetectionResult, dict[str, float]]:
    detection = evaluate_detection(segments, truth)
    return detection, _values(detection, segments, truth)


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


def _rows(records: Sequence[VideoRecord], kind: str) -> NDArray[np.float64]:
    return np.concatenate([record.kinds[kind].rows_ND for record in records]).astype(np.float64)
