"""Salvaged are the videos whose failures all say that they are damaged or cut; then as any other work."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.report import extraction_report, preview_report
from pipelines.extraction.run import extract
from pipelines.extraction.salvage import salvage_todo
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
    todo = salvage_todo(world.store.frames(), set(ids(5)), FINGERPRINTS, "segment_s=60", CONFIG.splits)
    assert todo["video_id"].to_list() == ["video000"]
    assert [need["encoder"] for need in todo["needs"][0]] == ["c3d", "clip"]
    none = salvage_todo(world.store.frames(), set(), FINGERPRINTS, "segment_s=60", CONFIG.splits)
    assert none.is_empty()


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
    ray_cluster: None, config: Config, damaged: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [str(tmp_path / name) for name in ("at-once", "long", "killed")]
    salvage = {"segment_s": 2.0, "on_truncated": "salvage"}
    first = extract(config(store_uri=stores[0], decode=salvage))
    assert list(first.salvaged) == ["half"] and "half" not in {row["video_id"] for row in first.failures}
    extract(config(store_uri=stores[1], decode=salvage | {"segment_s": 60.0}))
    killed, commit = config(store_uri=stores[2], decode=salvage, commit_interval_s=0.001), FeatureStore.commit_staged

    def die_salvaging(self: FeatureStore, rows: list[dict[str, object]]) -> None:
        commit(self, rows)
        if any(str(row["layout"]).endswith("salvaged") for row in rows):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FeatureStore, "commit_staged", die_salvaging)
        extract(killed)
    extract(killed)
    found = [open_manifest(store).frame.filter(video_id="half").to_dicts()[0] for store in stores]
    samples = [read_sample(store, row, "clip") for store, row in zip(stores, found, strict=True)]
    for features, meta in samples[1:]:
        np.testing.assert_allclose(features.astype(np.float32), samples[0][0].astype(np.float32), atol=2e-2)
        assert meta == samples[0][1]
