"""The decode stage: work rows in, segments with frames out; a failure is a row."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hvlm.errors import Reason
from hvlm.video.packets import BackendName
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView
from infra import retries
from pipelines.extraction import decode_stage
from pipelines.extraction.columns import COUNTS, ERROR, Failure, RowTiming, column, frames_of
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.ledger import StageCount, counts_from_json
from pipelines.extraction.sandbox import DecodeLimits, SandboxError
from pipelines.extraction.work import WORK_SCHEMA
from pipelines.store.sources import file_stamp
from tests.hvlm.video.backends import needs_torchcodec
from tests.hvlm.video.numbered import RECIPES
from tests.hvlm.video.numbered import write_video as write_numbered
from tests.infra.faulty import ALWAYS, Fault, plan
from tests.pipelines.extraction.conftest import write_video

VIEWS = {
    "a": FrameView(sampling=SamplingConfig(fps=2.0), resize=16, crop=16),
    "b": FrameView(sampling=SamplingConfig(fps=5.0), clip_frames=4, clip_stride=2, resize=8, crop=8),
}
DECODER = Decoder(backend="pyav", segment_s=2.0, views=VIEWS)


def work(path: Path | str, part: int = 0, num_parts: int = 1, **staged: list[int]) -> pa.Table:
    needs = [{"encoder": name, "staged_segments": done} for name, done in staged.items()]
    row = {
        "video_id": "v",
        "key": "v",
        "uri": str(path),
        "content_hash": "h",
        "part": part,
        "num_parts": num_parts,
        "needs": needs,
    }
    return pa.Table.from_pylist([row], schema=WORK_SCHEMA)


def test_every_segment_carries_the_frames_of_every_encoder(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)
    tables = list(DECODER(work(path, a=[], b=[])))
    assert [table.column("segment_index")[0].as_py() for table in tables] == [0, 1, 2]
    assert {table.column("num_segments")[0].as_py() for table in tables} == {3}
    timings = [RowTiming.from_json(table.column(column("a", "timing"))[0].as_py()) for table in tables]
    assert [(t.row_start, t.num_rows) for t in timings] == [(0, 4), (4, 4), (8, 2)]
    frames = frames_of(tables[0], "a", 0, 16)
    assert frames is not None and frames.shape == (4, 16, 16, 3)


@pytest.mark.parametrize("backend", ["decord", pytest.param("torchcodec", marks=needs_torchcodec)])
def test_what_a_backend_cannot_decode_right_is_decoded_by_pyav_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backend: BackendName
) -> None:
    """An AVI of two streams: decord cannot be told which one to take, torchcodec finds no frame without its pts."""
    decode_stage._warn_once.cache_clear()
    path = write_numbered(tmp_path / "two.avi", RECIPES["two_streams_avi"][1])
    row = work(path, a=[], b=[]).set_column(3, WORK_SCHEMA.field(3), pa.array(["two"]))
    decoders = (DECODER, replace(DECODER, backend=backend), replace(DECODER, backend=backend))
    wanted, *others = [list(decoder(row)) for decoder in decoders]
    assert len(wanted) == 2 and not wanted[0].column(ERROR)[0].is_valid and all(other == wanted for other in others)
    assert [record.message.partition(" cannot")[0] for record in caplog.records] == [f"decode.backend={backend}"]


def test_parts_divide_the_segments(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)
    parts = [
        [t.column("segment_index")[0].as_py() for t in DECODER(work(path, part, 2, a=[], b=[]))] for part in (0, 1)
    ]
    assert parts == [[0], [1, 2]]


def test_staged_segments_are_not_decoded_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)
    tables = list(DECODER(work(path, a=[0, 1], b=[0])))
    assert [table.column("segment_index")[0].as_py() for table in tables] == [1, 2]
    assert frames_of(tables[0], "a", 0, 16) is None
    assert frames_of(tables[0], "b", 0, 8) is not None


def test_a_bad_video_becomes_one_failed_row(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    for path in (empty, tmp_path / "missing.mp4"):
        (table,) = DECODER(work(path, a=[], b=[]))
        failure = Failure(**json.loads(table.column(ERROR)[0].as_py()))
        assert failure.stage == "decode" and failure.reason in (Reason.UNREADABLE, Reason.STORAGE_TRANSIENT)
        assert table.column("video_id")[0].as_py() == "v"


def test_the_last_row_of_a_work_row_says_what_became_of_all_its_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)

    def counted(table: pa.Table, num_rows: int) -> StageCount:
        texts = [text for row in DECODER(table) for text in row.column(COUNTS).to_pylist()]
        assert len(texts) == num_rows and texts[:-1] == [None] * (num_rows - 1)
        return counts_from_json(texts[-1])["decode"]

    assert counted(work(path, a=[], b=[]), 3) == StageCount(6, 6)
    assert counted(work(path, a=[0, 2], b=[0]), 2) == StageCount(6, 3, 3)
    assert counted(work(path, part=0, num_parts=3, a=[], b=[0]), 1) == StageCount(2, 1, 1)
    assert counted(work(path, a=[0, 1, 2]), 1) == StageCount(3, 0, 3)  # nothing to decode, but told
    assert counted(work(tmp_path / "gone.mp4", a=[], b=[]), 1) == StageCount(2, 0, 0, 2)
    decode = Decoder._decode_segment

    def fail_late(stage: Decoder, *arguments: Any) -> pa.Table:
        if arguments[2].segment_index == 2:
            raise OSError("gone")
        return decode(stage, *arguments)

    monkeypatch.setattr(Decoder, "_decode_segment", fail_late)
    assert counted(work(path, a=[], b=[1]), 3) == StageCount(6, 3, 1, 2)
    monkeypatch.setattr(Decoder, "_decode_segment", decode)
    monkeypatch.setattr(decode_stage, "zip", lambda *of, strict: list(zip(*of, strict=strict))[1:], raising=False)
    assert counted(work(path, a=[], b=[]), 3) == StageCount(6, 4)  # one segment is lost, and the counts say so


def test_only_annotated_spans_are_decoded_and_a_video_without_any_is_a_failed_row(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)
    views = {"a": VIEWS["a"], "b": replace(VIEWS["a"], sampling=SamplingConfig(kind="spans", fps=2.0))}
    decoder = replace(DECODER, views=views)

    def decoded(spans: list[list[float]] | None) -> list[pa.Table]:
        field = WORK_SCHEMA.field("spans_s")
        table = work(path, a=[], b=[]).drop_columns("spans_s")
        return list(decoder(table.append_column(field, pa.array([spans], field.type))))

    tables = decoded([[1.6, 2.2], [4.9, 9.0]])
    times = [np.frombuffer(table.column("b.times")[0].as_py()).tolist() for table in tables]
    assert times == [[1.5], [2.0], [4.5]]
    assert [table.column("num_frames_decoded")[0].as_py() for table in tables] == [4 + 1, 4 + 1, 2 + 1]
    timing = RowTiming.from_json(tables[2].column("b.timing")[0].as_py())
    assert (timing.row_start, timing.stride_s, timing.offset_s) == (2, 0.5, 0.0)
    for spans, message in (
        (None, "no span meets"),
        ([[7.0, 8.0]], r"of 1 annotated spans, the first \[7, 8\] s, none meets"),
    ):
        (table,) = decoded(spans)
        failure = Failure(**json.loads(table.column(ERROR)[0].as_py()))
        assert (failure.stage, failure.reason, failure.permanent) == ("decode:b", Reason.ZERO_FRAMES, True)
        assert re.search(message + " a row of its 5.00 s", failure.message)


def test_retries_of_the_storage_travel_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_sleep", lambda seconds: None)
    write_video(tmp_path / "v.mp4", seconds=5.0)
    retries.take()
    uri = plan(tmp_path, Fault(kind="timeout", call="get_file", times=2)) + "/v.mp4"
    tables = list(DECODER(work(uri, a=[], b=[])))
    assert [table.column("num_retries")[0].as_py() for table in tables] == [2, 0, 0]
    plan(tmp_path, Fault(kind="timeout", call="get_file", times=ALWAYS))
    (table,) = DECODER(work(uri, a=[], b=[]))
    assert json.loads(table.column(ERROR)[0].as_py())["reason"] == "storage_transient"
    assert table.column("num_retries")[0].as_py() == retries.ATTEMPTS - 1 and retries.take() == 0


def test_an_error_that_no_one_expected_is_a_failed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise IndexError("out of the decoder's bounds")

    monkeypatch.setattr("pipelines.extraction.sandbox.Sandbox.decode", fail)
    (table,) = DECODER(work(write_video(tmp_path / "v.mp4"), a=[], b=[]))
    failure = Failure(**json.loads(table.column(ERROR)[0].as_py()))
    assert failure.permanent and "IndexError: out of the decoder's bounds" in failure.message


def test_a_file_that_is_replaced_while_the_job_runs_is_not_taken_for_the_hashed_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", seconds=5.0)
    size_bytes, stamp = file_stamp(str(path))
    table = work(path, a=[], b=[])
    table = table.set_column(4, WORK_SCHEMA.field(4), pa.array([size_bytes], pa.int64()))
    table = table.set_column(5, WORK_SCHEMA.field(5), pa.array([stamp]))
    segments = DECODER(table)
    assert not next(segments).column(ERROR)[0].is_valid
    write_video(path, seconds=5.0, seed=3)
    failure = json.loads(next(segments).column(ERROR)[0].as_py())
    assert (
        failure["reason"] == Reason.STORAGE_TRANSIENT and not failure["permanent"] and "replaced" in failure["message"]
    )
    assert list(segments) == []


def test_no_video_is_blamed_for_a_decoding_process_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.extraction.sandbox._COMMAND", "raise SystemExit(7)")
    fresh = Decoder(backend="pyav", segment_s=2.0, views=VIEWS, limits=DecodeLimits(timeout_s=77.0))
    path = write_video(tmp_path / "v.mp4", seconds=3.0, seed=5)
    table = work(path, a=[], b=[])
    with pytest.raises(SandboxError):
        list(fresh(table.set_column(3, WORK_SCHEMA.field(3), pa.array(["another"]))))
