"""The row that travels through the extraction stages: one row per (video, segment), as Arrow columns.

Each encoder has a group of columns named `{encoder}.…`. Frames are one flat binary value per row (uint8, shape (F,
crop, crop, 3) by the encoder's view), so a batch is read without a copy and no Python object is pickled. A null
`{encoder}.frames` means that this encoder needs nothing from the row; a non-null `error` means that the row has
failed and only travels on to be counted, as does one of a work row that gave no segment: it has `counts` alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from hvlm.errors import Reason, VideoError

ERROR = "error"
COUNTS = "counts"
_FIXED = [
    ("video_id", pa.string()),
    ("key", pa.string()),
    ("content_hash", pa.string()),
    ("segment_index", pa.int64()),
    ("num_segments", pa.int64()),
    ("duration_s", pa.float64()),
    ("num_frames_decoded", pa.int64()),
    ("num_retries", pa.int64()),  # of storage calls, made for this row
    (ERROR, pa.string()),
    (COUNTS, pa.string()),  # of the decode stage for a whole work row, in its last row
]
_PER_ENCODER = [
    ("frames", pa.large_binary()),
    ("features", pa.large_binary()),
    ("times", pa.large_binary()),
    ("timing", pa.string()),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTiming:
    """When the rows of one encoder in one segment are: row i covers [offset_s + i·stride_s, … + clip_s)."""

    row_start: int
    num_rows: int
    fps: float
    stride_s: float
    clip_s: float
    offset_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RowTiming":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a row failed, and at which stage."""

    stage: str
    reason: Reason
    message: str
    permanent: bool

    @classmethod
    def of(cls, stage: str, error: VideoError) -> "Failure":
        return cls(stage=stage, reason=error.reason, message=error.message, permanent=error.permanent)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def segment_schema(encoders: Sequence[str]) -> pa.Schema:
    """Return the schema of segment rows; the same at every stage, so that blocks of any stage can be joined."""
    return pa.schema(_FIXED + [(column(name, part), dtype) for name in encoders for part, dtype in _PER_ENCODER])


def column(encoder: str, part: str) -> str:
    """Return the name of an encoder's column."""
    return f"{encoder}.{part}"


def row_table(encoders: Sequence[str], values: Mapping[str, Any]) -> pa.Table:
    """Return a one-row table; unnamed columns are null, numpy arrays become their bytes without a copy."""
    schema = segment_schema(encoders)
    return pa.table({field.name: _cell(values.get(field.name), field.type) for field in schema}, schema=schema)


def _cell(value: Any, dtype: pa.DataType) -> pa.Array:
    if isinstance(value, np.ndarray):
        offsets = np.array([0, value.nbytes], np.int64)
        return pa.Array.from_buffers(dtype, 1, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(value))])
    return pa.array([value], dtype)


def binary_value(table: pa.Table, name: str, row: int) -> memoryview | None:
    """Return the bytes of a binary cell without a copy, or None where it is null."""
    buffer = table.column(name)[row].as_buffer()
    return None if buffer is None else memoryview(buffer)


def frames_of(table: pa.Table, encoder: str, row: int, crop: int) -> np.ndarray | None:
    """Return the frames of a row, uint8 (F, crop, crop, 3), or None."""
    value = binary_value(table, column(encoder, "frames"), row)
    return None if value is None else np.frombuffer(value, np.uint8).reshape(-1, crop, crop, 3)


def replace_column(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    """Return the table with a column's values replaced, its type kept."""
    position = table.schema.get_field_index(name)
    return table.set_column(position, table.schema.field(position), pa.array(values, table.schema.field(position).type))
