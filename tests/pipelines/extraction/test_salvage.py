"""Salvaged are the videos whose failures all say that they are damaged or cut; then as any other work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from hvlm.video.sampling import SamplingConfig
from pipelines.extraction import run as run_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.report import extraction_report, preview_report
from pipelines.extraction.run import extract
from pipelines.extraction.salvage import retire_whole, salvage_todo
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest, read_sample
from tests.pipelines.extraction.conftest import write_video
from tests.pipelines.store.test_quarantine import fail
from tests.pipelines.store.world import BOTH, CONFIG, World, ids

Config = Callable[..., ExtractConfig]
FINGERPRINTS = {name: column.fingerprint for name, column in BOTH.items()}


def test_only_what_is_held_back_by_damage_alone_is_salvaged(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    world.add(*ids(5))
    world.snapshot()
    for video in ("video000", "video001", "video002"):
        fail(world, video, reason="truncated", fingerprint=FINGERPRINTS["clip"], encoder="clip")
    fail(world, "video001", reason="encoder_error", fingerprint=FINGERPRINTS["c3d"], encoder="c3d")
    fail(world, "video002", reason="unreadable", fingerprint=FINGERPRINTS["clip"], encoder="clip")
    fail(world, "video003", reason="timeout")
    todo = salvage_todo(world.store.frames(), FINGERPRINTS, "segment_s=60", CONFIG.splits)
    assert todo["video_id"].to_list() == ["video000"]
    assert [need["encoder"] for need in todo["needs"][0]] == ["c3d", "clip"]


@pytest.fixture
def damaged(videos: Path, tmp_path: Path) -> float:
    """Beside the good videos: one of 8 s cut at 60 %, the same one whole, and one of which nothing can be decoded."""
    whole = write_video(videos / "whole.mp4", seconds=8.0, seed=30, moov_first=True).read_bytes()
    (videos / "half.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    start = whole.index(b"mdat")
    (videos / "nothing.mp4").write_bytes(whole[: start + 40])
    return 8.0


def test_switching_to_salvage_extracts_the_truncated_videos_alone(
    ray_cluster: None, config: Config, damaged: float
) -> None:
    extract(config())
    store = FeatureStore.open(config().store_uri)
    reasons = dict(store.failures().select("video_id", "reason").iter_rows())
    assert reasons["half"] == "truncated"
    assert set(store.failures().filter(stage="decode")["decoder"].str.slice(0, 5)) == {"pyav "}

    salvaging = config(decode={"segment_s": 2.0, "on_truncated": "salvage"})
    seen = preview(salvaging)
    assert seen.num_salvaged == 2 and "2 damaged or cut videos" in preview_report(seen)
    assert preview(config()).num_salvaged == 0
    report = extract(salvaging)
    assert list(report.salvaged) == ["half"] and report.plan.todo.is_empty() and report.published.published == 1
    assert "1 damaged or cut videos" in extraction_report(salvaging.store_uri, report)
    manifest = open_manifest(salvaging.store_uri)
    rows = {row["video_id"]: row for row in manifest.frame.iter_rows(named=True)}
    for encoder in ("clip", "c3d"):
        part, meta = read_sample(manifest.store_uri, rows["half"], encoder)
        whole, whole_meta = read_sample(manifest.store_uri, rows["whole"], encoder)
        assert meta.truncated and not whole_meta.truncated
        assert 2.0 < meta.duration_s < 6.0 == whole_meta.duration_s - 2.0
        assert 0 < len(part) < len(whole) and meta.timestamps_s == whole_meta.timestamps_s[: len(part)]
        np.testing.assert_allclose(part.astype(np.float32), whole[: len(part)].astype(np.float32), atol=2e-2)
    again = extract(salvaging)
    assert not again.salvaged and again.num_frames == 0 and again.published.published == 0


def test_what_is_salvaged_is_the_same_in_one_run_after_a_kill_and_in_other_segments(
    ray_cluster: None, c3d_config: Config, damaged: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [str(tmp_path / name) for name in ("at-once", "long", "killed")]
    salvage = {"segment_s": 2.0, "on_truncated": "salvage"}
    first = extract(c3d_config(store_uri=stores[0], decode=salvage))
    assert list(first.salvaged) == ["half"] and "half" not in {row["video_id"] for row in first.failures}
    extract(c3d_config(store_uri=stores[1], decode=salvage | {"segment_s": 60.0}))
    killed, commit = (
        c3d_config(store_uri=stores[2], decode=salvage, commit_interval_s=0.001),
        FeatureStore.commit_staged,
    )

    def die_salvaging(self: FeatureStore, rows: list[dict[str, object]]) -> None:
        commit(self, rows)
        if any(str(row["layout"]).endswith("salvaged") for row in rows):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FeatureStore, "commit_staged", die_salvaging)
        extract(killed)
    extract(killed)
    found = [open_manifest(store).frame.filter(video_id="half").to_dicts()[0] for store in stores]
    samples = [read_sample(store, row, "c3d") for store, row in zip(stores, found, strict=True)]
    for features, meta in samples[1:]:
        np.testing.assert_allclose(features.astype(np.float32), samples[0][0].astype(np.float32), atol=2e-2)
        assert meta == samples[0][1]


@pytest.fixture
def holed(videos: Path) -> None:
    """One video alone, of 8 s, whose damage C3D meets (10 frames/s) and CLIP does not (keyframes)."""
    for path in videos.iterdir():
        path.unlink()
    whole = bytearray(write_video(videos / "holed.mp4", seconds=8.0, seed=30).read_bytes())
    spoil_a_frame(videos / "holed.mp4", whole)


def spoil_a_frame(path: Path, content: bytearray) -> None:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None and not packet.is_keyframe]
    packet = max(packets[len(packets) // 2 :], key=lambda packet: packet.size)
    content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)


def durations(config: ExtractConfig) -> dict[str, tuple[float, bool]]:
    manifest = open_manifest(config.store_uri)
    assert manifest.num_incomplete == 0
    (row,) = manifest.frame.to_dicts()
    metas = {name: read_sample(config.store_uri, row, name)[1] for name in config.encoders}
    return {name: (meta.duration_s, meta.truncated) for name, meta in metas.items()}


@pytest.mark.slow
def test_an_encoder_that_met_no_damage_is_salvaged_with_the_one_that_does(
    ray_cluster: None, config: Config, holed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config()
    made = replace(made, decode=replace(made.decode, segment_s=4.0, on_truncated="salvage"))
    sparse = replace(made.encoders["clip"], sampling=SamplingConfig(kind="keyframes"))
    both = replace(made, encoders={"clip": sparse, "c3d": made.encoders["c3d"]})
    at_once = replace(both, store_uri=str(tmp_path / "at-once"))
    extract(at_once)
    wanted = durations(at_once)
    assert wanted["clip"] == wanted["c3d"] and wanted["clip"][1] and 2.0 < wanted["clip"][0] < 8.0

    alone = replace(made, encoders={"clip": sparse})
    extract(alone)
    assert durations(alone) == {"clip": (8.0, False)}
    for retire in (lambda *_: False, retire_and_die):  # killed before the whole sample is retired, then after that
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run_module, "retire_whole", retire)
            patch.setattr(run_module, "publish", die)
            extract(both)
    extract(both)
    assert durations(both) == wanted
    again = extract(both)
    assert again.num_frames == 0 and again.published.published == 0

    # One more encoder that wants no damaged frame gets the part that the others have.
    third = replace(both, encoders={**both.encoders, "third": sparse})
    extract(third)
    assert durations(third) == wanted | {"third": wanted["clip"]}


def retire_and_die(*arguments: object) -> None:
    assert retire_whole(*arguments)  # type: ignore[arg-type]
    die()


def die(*_: object) -> None:
    raise KeyboardInterrupt
