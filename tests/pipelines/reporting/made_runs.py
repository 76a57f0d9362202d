"""Runs with known figures, made by hand, and the same runs written into an MLflow store."""

import json
import tempfile
from pathlib import Path

import polars as pl
from mlflow.tracking import MlflowClient

from pipelines.evaluation.run_layout import evaluation_folder
from pipelines.reporting.runs import EvaluatedRun

MANIFEST = "ab" * 32
RECALL = "val/video/text_to_video/recall_at_1"
MEAN_AP = "val/video/linear_probe/labels/mean_ap"
LABELS = ("spin", "blink")


def frame_of(ranks, raw_ranks, keys=None, summaries=None):
    """Rows of four samples, or as many as there are ranks."""
    keys = keys or [f"k{i}" for i in range(len(ranks))]
    count = range(len(keys))
    return pl.DataFrame(
        {
            "key": keys,
            "labels": [[LABELS[i % 2]] for i in count],
            "summary": summaries or [f"text {i}" for i in count],
            "ours.text_to_video_rank": list(ranks),
            "raw.text_to_video_rank": list(raw_ranks),
        },
        schema_overrides={"ours.text_to_video_rank": pl.Int64, "raw.text_to_video_rank": pl.Int64},
    )


def metric_row(name, ours, *, raw=None, chance=None, count=4, unit="videos", better="higher", headline=True, note=""):
    """One row of metrics.json."""
    values = {"name": name, "ours": ours, "raw": raw, "floor": None, "chance": chance, "count": count, "unit": unit}
    return values | {"better": better, "headline": headline, "note": note}


def _share(ranks):
    return sum(rank <= 1 for rank in ranks) / len(ranks)


def made_run(
    run_id="a" * 32,
    *,
    seed="0",
    method=None,
    ranks=(1, 2, 1, 4),
    raw_ranks=(2, 2, 1, 4),
    mean_ap=0.5,
    keys=None,
    manifest=MANIFEST,
    params=None,
    tags=None,
    curves=None,
    rows=None,
):
    """A run that evaluated four videos of val at step 20; recall at 1 is the share of `ranks` that are 1."""
    if rows is None:
        rows = [
            metric_row(RECALL, _share(ranks), raw=_share(raw_ranks), chance=0.25, count=len(ranks), unit="summaries"),
            metric_row(MEAN_AP, mean_ap, raw=0.25, chance=0.1, count=len(ranks)),
        ]
    document = {
        "format_version": 1,
        "checkpoint": {"step": 20},
        "store": {"uri": "/data/store", "version": 3, "manifest_hash": manifest},
        "splits": {"val": len(ranks)},
        "video_embedding": "top",
        "metrics": rows,
        "per_class_ap": {
            "val": {
                "classification/labels": {"ours": {"spin": mean_ap, "blink": 1.0}, "raw": {"spin": 0.25, "blink": None}}
            }
        },
    }
    seeded = {} if seed is None else {"seed": str(seed)}
    named = {} if method is None else {"sweep.method": method}
    shown = {row["name"]: row for row in rows if row["headline"]}
    return EvaluatedRun(
        run_id=run_id,
        status="FINISHED",
        params={"epochs": "4"} | seeded | (params or {}),
        tags={"git.commit": "c" * 40, "store.manifest_hash": MANIFEST, "evaluation.step": "20"} | named | (tags or {}),
        metrics={},
        step=20,
        document=document,
        rows=shown,
        samples={"val": frame_of(ranks, raw_ranks, keys)},
        logged={name: row["ours"] for name, row in shown.items() if row["ours"] is not None},
        curves=curves or {},
    )


def write_run(client: MlflowClient, experiment_id: str, run: EvaluatedRun, *, files=True) -> str:
    """Write a made run into MLflow as training and evaluation would; return its real id.

    `run.logged` and `run.curves` are its metrics; without `files` it has no artifacts.
    """
    created = client.create_run(experiment_id, run_name=run.tags.get("sweep.method"))
    run_id = created.info.run_id
    for key, value in run.params.items():
        client.log_param(run_id, key, value)
    for key, value in run.tags.items():
        client.set_tag(run_id, key, value)
    for name, value in run.logged.items():
        client.log_metric(run_id, name, value, step=run.step)
    for curves in run.curves.values():
        for name, (steps, values) in curves.items():
            for step, value in zip(steps, values, strict=True):
                client.log_metric(run_id, name, value, step=step)
    folder = evaluation_folder(run.step, "")
    with tempfile.TemporaryDirectory() as place:
        if files:
            (Path(place) / "metrics.json").write_text(json.dumps(run.document))
            for split, frame in run.samples.items():
                frame.write_parquet(Path(place) / f"samples_{split}.parquet")
            client.log_artifacts(run_id, place, folder)
    client.set_terminated(run_id, run.status)
    return run_id
