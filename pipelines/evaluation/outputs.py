"""The files beside the report: metrics.json, a parquet row per sample, predictions as ActivityNet wants them."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from hvlm.data.activitynet import canonical_id
from pipelines.evaluation.classification_group import activity_of
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.measure import SplitResult
from pipelines.evaluation.metric_table import plain_rows
from pipelines.evaluation.records import KINDS, OURS
from pipelines.evaluation.run_layout import FORMAT_VERSION

# Enough for every metric here; the official detection limit is 100 per video.
_CLASSES_PER_VIDEO = 20


def metrics_json(config: EvaluateConfig, inputs: EvaluationInputs, results: Sequence[SplitResult]) -> dict[str, Any]:
    """Return what metrics.json holds: provenance, every row with its count, what is absent and why, per-class AP."""
    return {
        "format_version": FORMAT_VERSION,
        "checkpoint": {
            "uri": inputs.checkpoint.uri,
            "step": inputs.checkpoint.step,
            "git_commit": inputs.info.git_commit,
        },
        "run_id": inputs.run_id,
        "store": {
            "uri": inputs.manifest.store_uri,
            "version": inputs.manifest.version,
            "manifest_hash": inputs.manifest.manifest_hash,
            "encoders": inputs.manifest.encoders,
            "is_training_store": inputs.num_excluded is None,
            "num_excluded_training_videos": inputs.num_excluded or 0,
        },
        "splits": {result.split: len(result.records) for result in results},
        "raw_retrieval_is_chance": inputs.raw_retrieval_is_chance,
        "video_embedding": config.video_embedding,
        "seed": config.seed,
        "metrics": [row for result in results for row in plain_rows(result.rows)],
        "absent": [{"metrics": absent.metrics, "why": absent.why} for result in results for absent in result.absent],
        "per_class_ap": {result.split: _per_class(result) for result in results},
        "probe_l2": {
            result.split: {name: task["l2"] for name, task in result.details["classification"].items()}
            for result in results
        },
    }


def sample_frame(result: SplitResult) -> pl.DataFrame:
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
    _add_predictions(rows, result)
    _add_ranks(rows, result)
    schema: dict[str, Any] = {"labels": pl.List(pl.String), "activity": pl.String, "summary": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def classification_submission(result: SplitResult, kind: str = OURS) -> dict[str, Any] | None:
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


def localisation_submission(result: SplitResult, kind: str = OURS) -> dict[str, Any] | None:
    """Return segment predictions in the ActivityNet submission format, or None without segments."""
    details = result.details["localisation"]
    if "found" not in details:
        return None
    predictions = {}
    for record in result.records:
        found = details["found"][record.key][kind]
        predictions[canonical_id(record.video_id)] = [
            {
                "label": details["classes"][int(label)],
                "score": float(score),
                "segment": [float(span[0]), float(span[1])],
            }
            for label, span, score in zip(found.label_N, found.span_N2, found.score_N, strict=True)
        ]
    return _submission(predictions)


def to_json(value: object) -> bytes:
    """Return JSON bytes; NaN is refused, it is no JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _submission(results: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "VERSION 1.3",
        "results": results,
        "external_data": {"used": True, "details": "frozen features; see metrics.json for encoders and checkpoint"},
    }


def _per_class(result: SplitResult) -> dict[str, Any]:
    per_class: dict[str, Any] = {}
    for name, task in result.details["classification"].items():
        per_class[f"classification/{name}"] = _named(task["classes"], task["ap"])
    localisation = result.details["localisation"]
    if localisation:
        per_class["localisation"] = _named(localisation["classes"], localisation["ap"])
    return per_class


def _named(classes: Sequence[str], columns: dict[str, Any]) -> dict[str, Any]:
    return {
        column: {name: _or_none(float(value)) for name, value in zip(classes, values, strict=True)}
        for column, values in columns.items()
    }


def _add_predictions(rows: list[dict[str, Any]], result: SplitResult) -> None:
    for name, task in result.details["classification"].items():
        for kind, scores in task["probability"].items():
            for row, best in zip(rows, scores.argmax(axis=1), strict=True):
                row[f"{kind}.top_{name}"] = task["classes"][int(best)]


def _add_ranks(rows: list[dict[str, Any]], result: SplitResult) -> None:
    """Video-level ranks stand beside their video; a video without a summary has none."""
    with_text = [i for i, record in enumerate(result.records) if record.summary and record.summary.strip()]
    for name, ranks in result.details["retrieval"].get("ranks", {}).items():
        level, direction, kind = name.split("/")
        if level != "video":
            continue
        for row in rows:
            row[f"{kind}.{direction}_rank"] = None
        for i, rank in zip(with_text, ranks, strict=True):
            rows[i][f"{kind}.{direction}_rank"] = int(rank)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
