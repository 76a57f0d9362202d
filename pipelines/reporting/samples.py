"""Per-sample values behind the metrics that are means over samples, from the evaluation's rows per sample."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from hvlm.metrics.retrieval import KS
from pipelines.evaluation.metric_table import KINDS

DIRECTIONS = ("text_to_video", "video_to_text")

SampleValues = dict[str, dict[str, dict[str, float]]]
"""`{metric: {ours or raw: {sample key: value}}}`."""


def sample_values(frame: pl.DataFrame, split: str) -> SampleValues:
    """Return the values whose mean is the metric; a sample that does not count for a metric has none.

    Args:
        frame: `samples_{split}.parquet`.
        split: begins the metrics' names.
    """
    values: SampleValues = {}
    for kind in KINDS:
        for name, of_sample in (
            *_hits(frame, kind),
            *_recalls(frame, kind),
            *_consistency(frame, kind),
            *_named(frame, kind),
        ):
            values.setdefault(f"{split}/{name}", {})[kind] = of_sample
    return values


def ranks(frame: pl.DataFrame, kind: str, direction: str) -> list[int]:
    """Return the rank of each query's best right answer, 1 is first; empty where the evaluation has none."""
    column = f"{kind}.{direction}_rank"
    return frame[column].drop_nulls().to_list() if column in frame.columns else []


def num_candidates(frame: pl.DataFrame, direction: str) -> int:
    """Return among how many candidates a query of video-level retrieval looks: videos, or different summaries."""
    texts = [text.strip() for text in frame["summary"].drop_nulls().to_list() if text.strip()]
    return len(texts) if direction == "text_to_video" else len(set(texts))


def _hits(frame: pl.DataFrame, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    for task in ("labels", "activity"):
        column = f"{kind}.top_{task}"
        if column not in frame.columns:
            continue
        known = frame.filter(pl.col("labels").list.len() > 0 if task == "labels" else pl.col("activity").is_not_null())
        true = [[row] if task == "activity" else row for row in known[task].to_list()]
        hits = [float(best in right) for best, right in zip(known[column].to_list(), true, strict=True)]
        yield f"video/linear_probe/{task}/hit_at_1", _keyed(known, hits)


def _recalls(frame: pl.DataFrame, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    for direction in DIRECTIONS:
        found = ranks(frame, kind, direction)
        if not found:
            continue
        asked = frame.filter(pl.col(f"{kind}.{direction}_rank").is_not_null())
        for k in KS:
            yield f"video/{direction}/recall_at_{k}", _keyed(asked, [float(rank <= k) for rank in found])


def _consistency(frame: pl.DataFrame, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    column = f"{kind}.temporal_consistency"
    if column in frame.columns:
        known = frame.filter(pl.col(column).is_not_null())
        yield "frame/temporal_consistency", _keyed(known, known[column].to_list())


def _named(frame: pl.DataFrame, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    """A column `ours/…` or `raw/…` is named after the metric of which it has the values."""
    for column in frame.columns:
        if column.startswith(f"{kind}/"):
            known = frame.filter(pl.col(column).is_not_null())
            yield column.removeprefix(f"{kind}/"), _keyed(known, known[column].to_list())


def _keyed(frame: pl.DataFrame, values: list[Any]) -> dict[str, float]:
    return dict(zip(frame["key"].to_list(), map(float, values), strict=True))
