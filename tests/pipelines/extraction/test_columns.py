"""Segment rows as Arrow columns."""

import json

import numpy as np
import pyarrow as pa
import pytest

from hvlm.errors import Reason, VideoError
from pipelines.extraction.columns import (
    Failure,
    RowTiming,
    column,
    frames_of,
    replace_column,
    row_table,
    segment_schema,
)


def test_frames_come_back_without_a_copy() -> None:
    frames = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    table = row_table(["clip", "c3d"], {"video_id": "a", column("clip", "frames"): frames})
    assert table.schema == segment_schema(["clip", "c3d"])
    read = frames_of(table, "clip", 0, 4)
    assert read is not None
    np.testing.assert_array_equal(read, frames)
    assert not read.flags.owndata
    assert frames_of(table, "c3d", 0, 4) is None


def test_zero_frames_are_not_null() -> None:
    table = row_table(["clip"], {column("clip", "frames"): np.empty((0, 4, 4, 3), np.uint8)})
    frames = frames_of(table, "clip", 0, 4)
    assert frames is not None and frames.shape == (0, 4, 4, 3)


def test_replacing_a_column_keeps_schema_and_refuses_another_count() -> None:
    table = row_table(["clip"], {"video_id": "a"})
    assert replace_column(table, "video_id", ["b"]).schema == table.schema
    with pytest.raises(pa.ArrowInvalid):
        replace_column(table, "video_id", ["b", "c"])


def test_timing_and_failure_survive_json() -> None:
    timing = RowTiming(row_start=3, num_rows=2, fps=25.0, stride_s=0.64, clip_s=0.64, offset_s=0.0)
    assert RowTiming.from_json(timing.to_json()) == timing
    failure = Failure.of("decode", VideoError(Reason.TRUNCATED, "28 of 50 frames"))
    assert Failure(**json.loads(failure.to_json())) == failure
    assert failure.permanent and failure.reason is Reason.TRUNCATED
