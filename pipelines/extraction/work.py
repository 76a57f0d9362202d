"""From the plan to work rows: what the decode stage gets, and in which order."""

import math
from typing import Any

import polars as pl
import pyarrow as pa

# One work row's share of a long video: scanning the file once per 8 segments costs little, and 3 h still spread widely.
SEGMENTS_PER_ROW = 8

WORK_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("content_hash", pa.string()),
        ("part", pa.int64()),
        ("num_parts", pa.int64()),
        ("needs", pa.list_(pa.struct([("encoder", pa.string()), ("staged_segments", pa.list_(pa.int64()))]))),
    ]
)


def work_table(todo: pl.DataFrame, segment_s: float) -> pa.Table:
    """Return the work rows of the planned videos, longest first, so that no long video is left for the end.

    The number of parts follows the probed duration and is only a matter of speed: the decode stage divides the true
    segments by it.
    """
    rows: list[dict[str, Any]] = []
    for video in todo.sort(["duration_s", "video_id"], descending=[True, False], nulls_last=True).iter_rows(named=True):
        segments = (video["duration_s"] or 0.0) / segment_s
        num_parts = max(1, math.ceil(segments / SEGMENTS_PER_ROW))
        shared = {name: video[name] for name in ("video_id", "key", "uri", "content_hash", "needs")}
        rows += [{**shared, "part": part, "num_parts": num_parts} for part in range(num_parts)]
    return pa.Table.from_pylist(rows, schema=WORK_SCHEMA)


def rows_per_block(num_rows: int, num_cpus: float) -> int:
    """Return how many work rows one decode task takes: 1 for few videos, up to 16 when there are many per core."""
    return max(1, min(16, int(num_rows / (8 * max(1.0, num_cpus)))))
