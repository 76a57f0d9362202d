"""With a cache a video is decoded once; from then on its copy is, and a copy is whole or not there."""

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hvlm.encoders.registry import load_encoder
from hvlm.errors import Reason, UserError
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView, cut_clips
from infra import storage
from infra.config_io import build_config
from pipelines.extraction.columns import ERROR, RowTiming, frames_of
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.frame_cache import FrameCache, FrameCacheConfig
from pipelines.extraction.recompute import Extractor, recompute
from pipelines.extraction.run import extract
from pipelines.extraction.sandbox import DecodeLimits, Sandbox, process_sandbox
from pipelines.extraction.stages import encoder_columns, row_seconds
from pipelines.extraction.work import WORK_SCHEMA
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest, read_sample
from tests.pipelines.extraction.conftest import write_video

Config = Callable[..., ExtractConfig]
VIEWS = {"a": FrameView(sampling=SamplingConfig(fps=5.0), resize=32, crop=32)}


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    return Decoder(backend="pyav", segment_s=2.0, views=VIEWS, cache=FrameCache(uri=f"{tmp_path}/kept", short_side=48))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.mp4", seconds=5.0)


def work(path: Path | str, **changes: Any) -> pa.Table:
    row = {"video_id": "v", "key": "v", "uri": str(path), "content_hash": "abcd", "part": 0, "num_parts": 1}
    needs = [{"encoder": "a", "staged_segments": []}]
    return pa.Table.from_pylist([{**row, "needs": needs, **changes}], schema=WORK_SCHEMA)


def frames(tables: list[pa.Table]) -> np.ndarray:
    assert [table.column(ERROR)[0].as_py() for table in tables] == [None] * len(tables)
    return np.concatenate([frames_of(table, "a", 0, 32) for table in tables])


def failure(decoder: Decoder, table: pa.Table) -> dict[str, Any]:
    (row,) = decoder(table)
    found: dict[str, Any] = json.loads(row.column(ERROR)[0].as_py())
    return found


def kept(decoder: Decoder) -> list[str]:
    return sorted(storage.list_files(decoder.cache.uri))  # type: ignore[union-attr]


def test_a_video_is_copied_once_and_never_opened_again(decoder: Decoder, video: Path) -> None:
    direct = frames(list(replace(decoder, cache=None)(work(video))))
    first = frames(list(decoder(work(video))))
    assert kept(decoder) == [Path(decoder.cache.copy_uri("abcd", False)).relative_to(decoder.cache.uri).as_posix()]  # type: ignore[union-attr]
    video.write_bytes(b"no video any more")
    assert np.array_equal(frames(list(decoder(work(video)))), first)
    assert first.shape == direct.shape == (25, 32, 32, 3) and np.abs(first.astype(int) - direct).mean() < 12
    assert failure(replace(decoder, cache=None), work(video, content_hash="other"))["reason"] == Reason.UNREADABLE


@pytest.mark.parametrize("breaks", ["cut", "empty", "hole"])
def test_a_broken_copy_is_made_again(decoder: Decoder, video: Path, breaks: str) -> None:
    first = frames(list(decoder(work(video))))
    copy = Path(decoder.cache.copy_uri("abcd", False))  # type: ignore[union-attr]
    whole = copy.read_bytes()
    start, end = whole.index(b"mdat") + len(whole) // 2, whole.index(b"moov") - 4
    damaged = {"cut": whole[: end // 2], "empty": b"", "hole": whole[:start] + bytes(end - start) + whole[end:]}
    copy.write_bytes(damaged[breaks])  # the hole shows only in the second segment
    assert np.array_equal(frames(list(decoder(work(video)))), first)
    assert copy.read_bytes() == whole


def test_a_copy_is_not_thrown_away_for_limits_that_are_too_low(decoder: Decoder, video: Path) -> None:
    list(decoder(work(video)))
    video.unlink()
    found = failure(replace(decoder, limits=DecodeLimits(output_gib=1e-6)), work(video))
    assert found["reason"] == Reason.TOO_LARGE and len(kept(decoder)) == 1


def test_the_videos_own_failures_are_told_and_leave_no_copy(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert failure(decoder, work(tmp_path / "bad.mp4"))["reason"] == Reason.UNREADABLE
    path = write_video(tmp_path / "v.mp4", seconds=5.0, moov_first=True)
    path.write_bytes(path.read_bytes()[:-3000])
    assert failure(decoder, work(path))["reason"] == Reason.TRUNCATED
    assert kept(decoder) == []
    salvaging = replace(decoder, salvage=True)
    part = frames(list(salvaging(work(path))))
    assert [name.endswith("-salvaged.copy") for name in kept(decoder)] == [True] and 0 < len(part) < 25
    path.unlink()
    assert np.array_equal(frames(list(salvaging(work(path)))), part)


def test_a_file_that_is_replaced_while_it_is_copied_gives_no_copy(decoder: Decoder, video: Path) -> None:
    found = failure(decoder, work(video, size_bytes=1, stamp="before"))
    assert found["reason"] == Reason.STORAGE_TRANSIENT and "replaced" in found["message"] and kept(decoder) == []


@pytest.mark.parametrize(
    ("ending", "reason", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", Reason.OUT_OF_MEMORY, "killed"),
        ("time.sleep(100)", Reason.TIMEOUT, r"3 × decode\.limits\.timeout_s=1 s"),  # the video has three segments
    ],
)
def test_a_decoder_that_is_killed_while_it_copies_leaves_nothing(
    decoder: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch, ending: str, reason: Reason, told: str
) -> None:
    start = f"""
import os, signal, time, pipelines.extraction.sandbox_child as c
def shrink_video(index, out_path, short_side):
    open(out_path, "wb").write(b"half")
    {ending}
c.shrink_video = shrink_video
"""
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.extraction.sandbox._COMMAND", start + "c.main({handle}, {memory_bytes})")
        found = failure(replace(decoder, limits=DecodeLimits(timeout_s=1.0)), work(video))
    process_sandbox(DecodeLimits())  # ends the hostile child
    assert found["reason"] == reason and re.search(told, found["message"]) and kept(decoder) == []


def test_a_worker_that_is_killed_while_it_copies_leaves_no_half_file_under_the_final_name(
    decoder: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Sandbox, index: object, out_path: str, *others: object) -> None:
        Path(out_path).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(Sandbox, "shrink", die)
        worker = os.fork()
        if worker == 0:
            list(replace(decoder, limits=DecodeLimits(timeout_s=55.0))(work(video)))
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == signal.SIGKILL
    (half,) = kept(decoder)
    assert storage.TEMP_MARK in half and not storage.exists(decoder.cache.copy_uri("abcd", False))  # type: ignore[union-attr]
    frames(list(decoder(work(video))))
    assert len(kept(decoder)) == 2


def test_a_full_disk_ends_the_job_and_blames_no_video(
    decoder: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sandbox.shrink

    def onto_a_full_disk(self: Sandbox, index: Any, out_path: str, *others: Any) -> None:
        original(self, index, "/dev/full", *others)

    monkeypatch.setattr(Sandbox, "shrink", onto_a_full_disk)
    with pytest.raises(UserError, match=r"kept/ab/abcd.*no space left") as caught:
        list(decoder(work(video)))
    assert caught.value.__cause__.errno == errno.ENOSPC  # type: ignore[union-attr]
    assert kept(decoder) == []


def test_a_second_encoder_is_extracted_from_the_copies_alone(
    ray_cluster: None, config: Config, videos: Path, tmp_path: Path
) -> None:
    cache = {"decode": {"segment_s": 2.0, "cache": {"uri": str(tmp_path / "copies")}}}
    clip_alone = config(encoders={"clip": config().encoders["clip"]}, **cache)
    assert extract(clip_alone).num_done == 4
    copies = {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").rglob("*.copy")}
    store = FeatureStore.open(clip_alone.store_uri)
    with ExitStack() as stack:
        again = recompute(store, Extractor(clip_alone, store, stack), 1.0, 0, 0.02, frozenset())
    assert (again.compared, again.problems, again.skipped) == (4, (), {})
    for path in videos.glob("*.mp4"):  # unreadable for a decoder, untouched for a snapshot
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = extract(config(**cache))
    assert report.snapshot.unchanged == 6 and report.num_done == 4 and not report.failures
    manifest = open_manifest(config().store_uri)
    assert manifest.num_incomplete == 0 and sorted(manifest.frame["video_id"]) == ["long one", "v0", "v1", "v2"]
    for row in manifest.frame.iter_rows(named=True):
        meta = read_sample(manifest.store_uri, row, "c3d")[1]
        assert meta.timestamps_s == pytest.approx([0.8 * number for number in range(len(meta.timestamps_s))])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").rglob("*.copy")} == copies
    assert len(copies) == 4


@pytest.mark.parametrize(("name", "alike"), [("clip", 0.95), ("c3d", 0.85)])
def test_features_of_copies_are_near_those_of_originals(
    decoder: Decoder, config: Config, video: Path, name: str, alike: float
) -> None:
    """The video is noise in every pixel, the hardest to copy; from frame to frame clip's features are at 0.44."""
    encoder = load_encoder(config().encoders[name], "cpu")
    features = []
    for cache in (None, FrameCache(uri=decoder.cache.uri, short_side=256)):  # type: ignore[union-attr]
        (table,) = replace(decoder, views={"a": encoder.view}, segment_s=60.0, cache=cache)(work(video))
        pixels = frames_of(table, "a", 0, encoder.view.crop)
        rows = RowTiming.from_json(table.column("a.timing")[0].as_py()).num_rows
        features.append(encoder.encode(cut_clips(pixels, rows, encoder.view)).astype(np.float64))
    one, other = features
    assert ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min() > alike


def test_only_a_cache_changes_fingerprints_and_keeps_a_video_with_one_worker(config: Config) -> None:
    none, small, large = (
        config(decode={"segment_s": 2.0, "cache": cache}) for cache in (None, {"short_side": 256}, {"short_side": 320})
    )
    prints = [encoder_columns(each)["clip"].fingerprint for each in (none, small, large)]
    assert prints[0] == encoder_columns(config())["clip"].fingerprint and len(set(prints)) == 3
    assert "cache" not in encoder_columns(none)["clip"].identity
    assert encoder_columns(small)["clip"].identity["cache"]["short_side"] == 256
    assert [row_seconds(each, salvage=False) for each in (none, small)] == [2.0, float("inf")]


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({"short_side": 255}, "an even number of pixels"),
        ({"short_side": 8}, "16 or more"),
        ({"uri": ""}, "uri='': String should have at least 1 character"),
        ({"side": 256}, "side"),
    ],
)
def test_a_wrong_cache_is_refused(cache: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(FrameCacheConfig, cache, origin="test")


def test_an_encoder_that_a_copy_is_not_good_enough_for_is_refused(config: Config) -> None:
    tiny = {"decode": {"cache": {"short_side": 16}}}
    with pytest.raises(UserError, match=r"short_side: got 16; expected at least the \d+ pixels .* 'clip'"):
        encoder_columns(config(**tiny))
    keyframes = {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"}
    keyframes |= {"sampling": {"kind": "keyframes"}}
    with pytest.raises(UserError, match=r"encoders\.key\.sampling\.kind"):
        encoder_columns(config(encoders={"key": keyframes}, decode={"cache": {}}))


def test_copies_stand_in_the_store_or_where_they_are_told_to() -> None:
    inside = FrameCache.of(FrameCacheConfig(), "/store")
    other = FrameCache.of(FrameCacheConfig(uri="s3://bucket/copies/", short_side=320), "/store")
    assert inside.copy_uri("ff00", False).startswith("/store/frames/ff/ff00-256-")
    assert other.copy_uri("ff00", True).startswith("s3://bucket/copies/ff/ff00-320-")
    assert len({inside.copy_uri("ff00", False), inside.copy_uri("ff00", True)}) == 2
    assert inside.copy_uri("ff00+spans", False) == inside.copy_uri("ff00", False)  # whole videos are copied
