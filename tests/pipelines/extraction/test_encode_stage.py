"""Encoding keeps every row's features with its row, whatever shares the batch."""

import json
import socket
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from hvlm.errors import Reason
from hvlm.video.views import FrameView
from pipelines.extraction import encode_stage
from pipelines.extraction.columns import ERROR, Failure, RowTiming, column, row_table
from pipelines.extraction.encode_stage import DeviceFault, MixedUpError, encode_table
from pipelines.extraction.resources import EncoderThreads


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


def test_a_row_too_large_for_the_memory_is_tried_again_by_the_next_run() -> None:
    class Full(MeanEncoder):
        def encode(self, clips: np.ndarray) -> np.ndarray:
            if len(clips) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(clips)

    table = encode_table(pa.concat_tables([segment("a", [1, 1]), segment("b", [7, 7, 7])]), "e", Full(VIEW))
    failure = Failure(**json.loads(table.column(ERROR)[1].as_py()))
    assert failure.reason == Reason.OUT_OF_MEMORY and not failure.permanent
    assert table.column(ERROR)[0].as_py() is None and len(features(table, 0)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_gpu_that_fails_ends_the_job_and_is_named(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, alone: bool
) -> None:
    class Dying(MeanEncoder):
        def encode(self, clips: np.ndarray) -> np.ndarray:
            if len(clips) > 1 and alone:
                raise RuntimeError("the model cannot take this")
            raise fault

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(DeviceFault, match=rf"encoder e: GPU 3 of {socket.gethostname()} failed .*CUDA error") as caught:
        encode_table(pa.concat_tables([segment("a", [1, 1]), segment("b", [7, 7])]), "e", Dying(VIEW))
    assert caught.value.__cause__ is fault


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


def three() -> pa.Table:
    return pa.concat_tables([segment("a", [10, 20, 40]), segment("b", [80, 90]), segment("c", [120, 140])])


@pytest.mark.parametrize(
    "mutate",
    [
        lambda f: f[::-1],  # a permuted batch
        lambda f: np.roll(f, 1, axis=0),  # every row one place on
        lambda f: np.concatenate([f[:1], f[:1], f[2:]]),  # one row twice, another lost
    ],
    ids=["permuted", "shifted", "doubled"],
)
def test_a_batch_whose_rows_are_mixed_up_ends_the_job(mutate: Callable[[np.ndarray], np.ndarray]) -> None:
    class Mutated(MeanEncoder):
        def encode(self, clips: np.ndarray) -> np.ndarray:
            return mutate(super().encode(clips)) if len(clips) > 1 else super().encode(clips)

    encode_table(three(), "e", MeanEncoder(VIEW), prove=True)
    with pytest.raises(MixedUpError, match="other features alone"):
        encode_table(three(), "e", Mutated(VIEW), prove=True)


@pytest.mark.parametrize("mutate", [lambda f: f[:-1], lambda f: np.concatenate([f, f[-1:]])], ids=["lost", "added"])
def test_a_batch_with_another_number_of_rows_fails(mutate: Callable[[np.ndarray], np.ndarray]) -> None:
    class Mutated(MeanEncoder):
        def encode(self, clips: np.ndarray) -> np.ndarray:
            return mutate(super().encode(clips))

    table = encode_table(three(), "e", Mutated(VIEW))
    assert table.column(ERROR).null_count == 0 and table.column(column("e", "features")).null_count == 3


def test_a_feature_of_zeros_is_a_failure_of_its_video() -> None:
    table = encode_table(pa.concat_tables([segment("a", [10, 20]), segment("b", [0, 0])]), "e", MeanEncoder(VIEW))
    assert table.column(ERROR)[0].as_py() is None
    failure = json.loads(table.column(ERROR)[1].as_py())
    assert failure["reason"] == Reason.ENCODER_ERROR and "all zero" in failure["message"]


def test_the_first_batch_of_an_actor_and_one_in_64_are_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    proved = []
    monkeypatch.setattr(encode_stage, "load_encoder", lambda config, device: MeanEncoder(VIEW))
    monkeypatch.setattr(encode_stage, "_prove", lambda *arguments: proved.append(stage._num_batches))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of this process: other tests want theirs
    stage = encode_stage.EncodeStage("e", None, EncoderThreads(least=1, most=1))  # type: ignore[arg-type]
    for _ in range(130):
        stage(three())
    assert proved == [1, 65, 129]


def test_each_batch_has_the_threads_that_others_leave_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    used, spare = [], iter([1, 8, 2])
    monkeypatch.setattr(encode_stage, "load_encoder", lambda config, device: MeanEncoder(VIEW))
    monkeypatch.setattr(encode_stage.SpareCpus, "num_threads", lambda self: next(spare))
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    stage = encode_stage.EncodeStage("e", None, EncoderThreads(least=1, most=4))  # type: ignore[arg-type]
    for _ in range(3):
        stage(three())
    assert used == [1, 4, 2]
