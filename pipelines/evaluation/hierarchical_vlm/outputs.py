"""What the evaluation of HierarchicalVLM hands over of a split: rows per video, sections, ActivityNet submissions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hvlm.data.activitynet import canonical_id
from pipelines.evaluation.classification_group import activity_of, named_ap, prediction_columns
from pipelines.evaluation.hierarchical_vlm.figures import group_figures
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE, VideoRecord
from pipelines.evaluation.metric_table import KINDS, OURS, Absent, MetricRow
from pipelines.evaluation.outputs import to_json
from pipelines.evaluation.results import Section, SplitResult
from pipelines.evaluation.retrieval_group import rank_columns

# Enough for every metric here; the official detection limit is 100 per video.
_CLASSES_PER_VIDEO = 20
_TITLES = {
    "consistency": "Temporal consistency",
    "classification": "Video classification",
    "localisation": "Temporal localisation",
    "retrieval": "Retrieval",
}


@dataclass(frozen=True, slots=True)
class MeasuredSplit:
    """Everything measured on one split; `details` by group: consistency, classification, localisation, retrieval."""

    split: str
    records: Sequence[VideoRecord]
    rows: list[MetricRow]
    absent: list[Absent]
    details: dict[str, dict[str, Any]]


def split_result(measured: MeasuredSplit, num_timelines: int) -> SplitResult:
    """Return what is reported of a split.

    Args:
        measured: its records and metrics.
        num_timelines: videos whose truth and predictions are drawn.
    """
    figures = group_figures(measured.records, measured.details, num_timelines)
    sections = {
        name: Section(title, [row for row in measured.rows if row.group == name], figures.get(name, ()))
        for name, title in _TITLES.items()
    }
    submissions = {
        "classification": classification_submission(measured),
        "localisation": localisation_submission(measured, PROBE),
        "localisation_head": localisation_submission(measured, HEAD),
    }
    return SplitResult(
        split=measured.split,
        samples=sample_frame(measured),
        sections=sections,
        absent=measured.absent,
        per_class_ap=_per_class_ap(measured),
        facts={
            "probe_l2": {name: task["l2"] for name, task in measured.details["classification"].items()},
            "localisation_head": measured.details["localisation"].get(HEAD, {}).get("fit"),
        },
        predictions={
            f"predictions_{name}_{measured.split}.json": to_json(submission)
            for name, submission in submissions.items()
            if submission is not None
        },
    )


def sample_frame(result: MeasuredSplit) -> pl.DataFrame:
    """Return one row per video of a split: consistency, retrieval ranks, labels, best predictions of ours and raw."""
    rows: list[dict[str, Any]] = [
        {
            "key": record.key,
            "video_id": record.video_id,
            "split": record.split,
            "duration_s": record.duration_s,
            "num_rows": record.num_rows,
            "num_bad_rows": record.num_bad_rows,
            "labels": sorted({str(item["label"]) for item in record.annotations}),
            "activity": activity_of(record),
            "summary": record.summary,
        }
        | {f"{kind}.temporal_consistency": _or_none(record.kinds[kind].temporal_consistency) for kind in KINDS}
        | {f"{kind}.distant_cosine": _or_none(record.kinds[kind].distant_cosine) for kind in KINDS}
        for record in result.records
    ]
    predicted = prediction_columns(result.details["classification"], len(rows))
    ranks = rank_columns(result.records, result.details["retrieval"])
    rows = [row | best | rank for row, best, rank in zip(rows, predicted, ranks, strict=True)]
    schema: dict[str, Any] = {"labels": pl.List(pl.String), "activity": pl.String, "summary": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def classification_submission(result: MeasuredSplit, kind: str = OURS) -> dict[str, Any] | None:
    """Return label predictions in the ActivityNet submission format, or None without labels."""
    task = result.details["classification"].get("labels")
    if task is None:
        return None
    predictions = {}
    for record, scores in zip(result.records, task["probability"][kind], strict=True):
        best = np.argsort(-scores, kind="stable")[:_CLASSES_PER_VIDEO]
        predictions[canonical_id(record.video_id)] = [
            {"label": task["classes"][c], "score": float(scores[c])} for c in best
        ]
    return _submission(predictions)


def localisation_submission(result: MeasuredSplit, method: str, kind: str = OURS) -> dict[str, Any] | None:
    """Return the segments that a method found in the ActivityNet submission format, or None without segments."""
    details = result.details["localisation"]
    if "found" not in details:
        return None
    predictions = {}
    for record in result.records:
        found = details["found"][record.key][method][kind]
        predictions[canonical_id(record.video_id)] = [
            {
                "label": details["classes"][int(label)],
                "score": float(score),
                "segment": [float(span[0]), float(span[1])],
            }
            for label, span, score in zip(found.label_N, found.span_N2, found.score_N, strict=True)
        ]
    return _submission(predictions)


def _submission(results: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "VERSION 1.3",
        "results": results,
        "external_data": {"used": True, "details": "frozen features; see metrics.json for encoders and checkpoint"},
    }


def _per_class_ap(result: MeasuredSplit) -> dict[str, Any]:
    tasks = {f"classification/{name}": task for name, task in result.details["classification"].items()}
    localisation = result.details["localisation"]
    named = {"localisation": PROBE, "localisation_head": HEAD}
    return named_ap(tasks | {name: localisation[method] for name, method in named.items() if localisation})


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
