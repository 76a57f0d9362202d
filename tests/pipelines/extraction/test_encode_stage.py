"""Encoding keeps every row's features with its row, whatever shares the batch."""

import json

import numpy as np
import pyarrow as pa

from hvlm.errors import Reason
from hvlm.video.views import FrameView
from pipelines.extraction.columns import ERROR, Failure, RowTiming, column, row_table
from pipelines.extraction.encode_stage import encode_table


class MeanEncoder:
    """The mean of each clip's pixels, twice; raises on a clip whose pixels are all `bad`."""

    dim = 2

    def __init__(self, view: FrameView, bad: int | None = None, nan: int | None = None) -> None:
        self.view, self.bad, self.nan, self.calls = view, bad, nan, 0

    def encode(self, clips: np.ndarray) -> np.ndarray:
        self.calls += 1
        means = clips.reshape(len(clips), -1).mean(axis=1)
        if self.bad is not None and (means == self.bad).any():
            raise RuntimeError("the model cannot take this")
        if self.nan is not None:
            means = np.where(means == self.nan, np.nan, means)
        return np.stack([means, means], axis=1).astype(np.float32)


VIEW = FrameView(clip_frames=2, clip_stride=1, resize=4, crop=4)


def segment(video_id: str, values: list[int], num_rows: int | None = None) -> pa.Table:
    frames = (
        np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])
        if values
        else np.empty((0, 4, 4, 3), np.uint8)
    )
    rows = max(0, len(values) - 1) if num_rows is None else num_rows
    timing = RowTiming(row_start=0, num_rows=rows, fps=1.0, stride_s=1.0, clip_s=2.0, offset_s=0.0)
    return row_table(
        ["e"], {"video_id": video_id, column("e", "frames"): frames, column("e", "timing"): timing.to_json()}
    )


def features(table: pa.Table, row: int) -> np.ndarray:
    return np.frombuffer(table.column(column("e", "features"))[row].as_py(), np.float16).reshape(-1, 2)


def test_each_row_gets_its_own_features_and_loses_its_frames() -> None:
    encoder = MeanEncoder(VIEW)
    table = encode_table(
        pa.concat_tables([segment("a", [0, 2, 4]), segment("b", [10, 20]), segment("c", [])]), "e", encoder
    )
    assert encoder.calls == 1
    np.testing.assert_array_equal(features(table, 0)[:, 0], [1, 3])
    np.testing.assert_array_equal(features(table, 1)[:, 0], [15])
    assert features(table, 2).shape == (0, 2)
    assert table.column(column("e", "frames")).null_count == 3
    assert table.column(ERROR).null_count == 3


def test_a_row_that_the_model_refuses_fails_alone() -> None:
    table = encode_table(
        pa.concat_tables([segment("a", [1, 1]), segment("b", [7, 7]), segment("c", [3, 3])]),
        "e",
        MeanEncoder(VIEW, bad=7),
    )
    failure = Failure(**json.loads(table.column(ERROR)[1].as_py()))
    assert failure.reason == Reason.ENCODER_ERROR and failure.stage == "encode:e" and failure.permanent
    assert table.column(ERROR)[0].as_py() is None and table.column(ERROR)[2].as_py() is None
    np.testing.assert_array_equal(features(table, 2)[:, 0], [3])


def test_nan_features_become_a_failure() -> None:
    table = encode_table(pa.concat_tables([segment("a", [1, 1]), segment("b", [7, 7])]), "e", MeanEncoder(VIEW, nan=7))
    assert "NaN" in Failure(**json.loads(table.column(ERROR)[1].as_py())).message
    assert table.column(ERROR)[0].as_py() is None


def test_failed_rows_and_rows_without_frames_pass_through() -> None:
    failed = row_table(["e"], {"video_id": "x", ERROR: "{}"})
    encoder = MeanEncoder(VIEW)
    table = encode_table(pa.concat_tables([failed, row_table(["e"], {"video_id": "y"})]), "e", encoder)
    assert encoder.calls == 0 and table.num_rows == 2
    assert table.column(ERROR).to_pylist() == ["{}", None]
