"""From the plan to work rows: what the decode stage gets, and in which order."""

import math
from itertools import pairwise
from typing import Any

import polars as pl
import pyarrow as pa

from pipelines.store.spans import spans_of

# One work row's share of a long video: scanning the file once per 8 segments costs little, and 3 h still spread widely.
SEGMENTS_PER_ROW = 8
# A decode task's share: long enough that the gap before the next task does not show, short enough to spread evenly.
BLOCK_SECONDS = 1800.0
MAX_BLOCK_ROWS = 64
_BLOCKS_PER_CPU = 8

WORK_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("content_hash", pa.string()),
        ("size_bytes", pa.int64()),
        ("stamp", pa.string()),  # with size_bytes: the file is still the one that was hashed; null: not known
        ("part", pa.int64()),
        ("num_parts", pa.int64()),
        ("seconds", pa.float64()),
        ("spans_s", pa.list_(pa.list_(pa.float64()))),  # annotated (start, end); null where no encoder asks for them
        ("needs", pa.list_(pa.struct([("encoder", pa.string()), ("staged_segments", pa.list_(pa.int64()))]))),
    ]
)


def work_table(todo: pl.DataFrame, segment_s: float) -> pa.Table:
    """Return the work rows of the planned videos, longest first, so that no long video is left for the end.

    The number of parts follows the probed duration and is only a matter of speed: the decode stage divides the true
    segments by it.

    Args:
        todo: as `Plan.todo`; with `size_bytes` and `stamp` where the file is to be proved unchanged, with
            `metadata_json` where an encoder samples spans.
    """
    rows: list[dict[str, Any]] = []
    for video in todo.sort(["duration_s", "video_id"], descending=[True, False], nulls_last=True).iter_rows(named=True):
        duration_s = video["duration_s"] or 0.0
        num_parts = max(1, math.ceil(duration_s / segment_s / SEGMENTS_PER_ROW))
        shared = {name: video[name] for name in ("video_id", "key", "uri", "content_hash", "needs")}
        shared |= {name: video.get(name) for name in ("size_bytes", "stamp")}
        shared |= {"num_parts": num_parts, "seconds": duration_s / num_parts}
        shared["spans_s"] = spans_of(video["metadata_json"]) if video.get("metadata_json") else None
        rows += [{**shared, "part": part} for part in range(num_parts)]
    return pa.Table.from_pylist(rows, schema=WORK_SCHEMA)


def work_blocks(work: pa.Table, num_cpus: float) -> list[pa.Table]:
    """Return the work rows cut into blocks, a decode task each: by seconds of video, several blocks for every core."""
    seconds = work.column("seconds").to_pylist()
    wanted = min(BLOCK_SECONDS, sum(seconds) / (_BLOCKS_PER_CPU * max(1.0, num_cpus)))
    ends, held = [0], 0.0
    for row, row_s in enumerate(seconds, start=1):
        held += row_s
        if held >= wanted or row - ends[-1] == MAX_BLOCK_ROWS or row == len(seconds):
            ends.append(row)
            held = 0.0
    return [work.slice(start, end - start) for start, end in pairwise(ends)]
