"""Records made by hand, for the groups of metrics that need no model."""

from typing import Any

import numpy as np

from hvlm.metrics.consistency import BoundaryPairs, boundary_pairs, distant_pair_cosine, temporal_consistency
from pipelines.evaluation.hierarchical_vlm.labels import segment_spans
from pipelines.evaluation.hierarchical_vlm.records import KindRecord, VideoRecord
from pipelines.evaluation.retrieval_group import TextSpace


def kind_record(rows: np.ndarray, annotations: list[dict[str, Any]] | None = None) -> KindRecord:
    """The record of some rows at 0.5, 1.5, ... s; the video embedding is their mean."""
    rows = np.asarray(rows, dtype=np.float32)
    times = np.arange(len(rows), dtype=np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = boundary_pairs(rows, times + 0.5, segment_spans(annotations)) if annotations else BoundaryPairs()
    return KindRecord(
        video_D=rows.mean(axis=0),
        rows_ND=rows,
        mean_unit_D=unit.mean(axis=0),
        temporal_consistency=float(temporal_consistency(rows[None], np.ones((1, len(rows)), bool))[0]),
        distant_cosine=distant_pair_cosine(rows, times),
        level_consistency=(0.5,),
        boundary=pairs,
    )


def record(key: str, ours: np.ndarray, raw: np.ndarray | None = None, **changes: Any) -> VideoRecord:
    """A video of one row per second."""
    raw = ours if raw is None else raw
    annotations = changes.get("annotations", [])
    values: dict[str, Any] = {
        "key": key,
        "video_id": key,
        "split": "val",
        "duration_s": float(len(ours)),
        "stride_s": 1.0,
        "num_rows": len(ours),
        "num_bad_rows": 0,
        "sampled_N": np.arange(len(ours)),
        "centre_s_N": np.arange(len(ours)) + 0.5,
        "kinds": {"ours": kind_record(ours, annotations), "raw": kind_record(raw, annotations)},
        "spaces": {},
    }
    return VideoRecord(**(values | changes))


def segment(label: str, start_s: float, end_s: float) -> dict[str, Any]:
    return {"label": label, "segment": [start_s, end_s]}


def space(video: list[float], captions: list[list[float]]) -> TextSpace:
    return TextSpace(video_E=np.array(video, np.float32), captions_PE=np.array(captions, np.float32))
