"""New data and other encoders cost what is new and nothing else: counted in frames, reads and bytes of files."""

import builtins
import io
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from infra import storage
from infra.config_io import build_config
from pipelines.extraction import run as run_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.run import ExtractReport, extract
from pipelines.store import snapshot as snapshot_module
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.upkeep.compact import CompactConfig, compact
from pipelines.store.upkeep.verify import verify_store
from tests.bench.bench_rerun import finished_config, make_finished
from tests.pipelines.extraction.conftest import write_video
from tests.pipelines.store.world import tree

CLIP = {
    "kind": "clip",
    "model": "jobs/configs/models/tiny_clip.json",
    "pretrained": "random",
    "sampling": {"kind": "fps", "fps": 4.0},
}
C3D = {"kind": "c3d", "weights": "random", "fps": 10.0, "stride_frames": 8, "width": 0.0625, "fc_dim": 32}


def config(folder: Path, store: str = "store", **encoders: dict[str, Any]) -> ExtractConfig:
    values = {
        "store_uri": str(folder / store),
        "source": {"uri": str(folder / "videos")},
        "encoders": encoders,
        "publish": {"target_shard_bytes": 60_000},
        "resources": {"segments_per_batch": 16, "segments_per_tar": 16, "encoder_threads": 1},
    }
    return build_config(ExtractConfig, values, origin="test")


def counts(report: ExtractReport) -> dict[str, dict[str, int]]:
    """Encoder -> status -> number, without the zeros."""
    return {
        name: {status: number for status, number in found.items() if number}
        for name, found in report.plan.counts.items()
    }


def shards(folder: Path, encoder: str = "") -> dict[str, str]:
    """{shard: sha256} of an encoder's sets."""
    found = tree(folder / "store").items()
    return {path: digest for path, digest in found if path.endswith(".tar") and f"/{encoder}" in path}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What is read of sources: `ranges` (uri, bytes) and `probes` (uri). Tasks run here, where they can be counted."""
    found: dict[str, list[Any]] = {"ranges": [], "probes": []}
    read_range, identify = storage.read_range, snapshot_module.identify

    def counted_range(uri: str, offset: int, size: int) -> bytes:
        if "/videos/" in uri:
            found["ranges"].append((os.path.basename(uri), size))
        return read_range(uri, offset, size)

    def counted_identify(row: Any, probe: Any) -> Any:
        return identify(row, lambda path: found["probes"].append(os.path.basename(path)) or probe(path))  # type: ignore[func-returns-value]

    monkeypatch.setattr(storage, "read_range", counted_range)
    monkeypatch.setattr(run_module, "identify", counted_identify)
    monkeypatch.setattr(run_module, "run_tasks", lambda function, inputs: map(function, inputs))
    return found


def test_a_snapshot_that_differs_costs_the_difference_and_compact_removes_what_was_deleted(
    ray_cluster: None, tmp_path: Path, reads: dict[str, list[Any]]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(100):
        write_video(videos / f"v{number:03d}.mp4", seconds=1.0, seed=number)
    first = extract(config(tmp_path, clip=CLIP))
    assert (first.num_done, first.published.published) == (100, 100)
    assert first.num_frames % 100 == 0
    before = shards(tmp_path)
    assert len(before) > 5
    for name in reads.values():
        name.clear()

    for number in range(3):
        write_video(videos / f"new{number}.mp4", seconds=1.0, seed=200 + number)
    write_video(videos / "v000.mp4", seconds=1.0, seed=300)
    (videos / "v001.mp4").unlink()
    (videos / "v002.mp4").unlink()
    (videos / "v003.mp4").rename(videos / "renamed.mp4")
    second = extract(config(tmp_path, clip=CLIP))

    decoded = ["new0", "new1", "new2", "v000"]
    assert sorted(second.plan.todo["video_id"]) == decoded
    assert (second.num_done, second.num_frames) == (4, 4 * first.num_frames // 100)
    assert counts(second) == {"clip": {"new": 3, "changed": 1, "relabelled": 1, "done": 96}}
    found = second.snapshot
    assert (found.new, found.changed, found.renamed, found.unchanged, found.tombstoned) == (3, 1, 1, 96, 3)
    assert (second.published.published, second.published.tombstoned) == (5, 3)
    sizes = {f"{name}.mp4": (videos / f"{name}.mp4").stat().st_size for name in [*decoded, "renamed"]}
    assert sorted(reads["ranges"]) == sorted(sizes.items())  # each once, whole: they are shorter than 1 MiB
    assert sorted(reads["probes"]) == sorted(f"{name}.mp4" for name in decoded)  # the renamed one costs its hash alone
    assert before.items() <= shards(tmp_path).items()
    manifest = open_manifest(config(tmp_path, clip=CLIP).store_uri)
    there = {path.stem for path in videos.iterdir()}
    assert set(manifest.frame["video_id"]) == there and len(there) == 101

    before_it = features(manifest)
    done = compact(CompactConfig(store_uri=manifest.store_uri, target_shard_bytes=60_000, keep_versions_days=0))
    assert (done.num_videos, done.num_dead, done.dropped) == (101, 4, (1, 2))
    assert keys_of_shards(tmp_path / "store") == Counter(there)
    after = open_manifest(manifest.store_uri)
    assert all((array == before_it[video_id]).all() for video_id, array in features(after).items())
    assert verify_store(manifest.store_uri).problems == verify_store(manifest.store_uri).orphans == ()
    third = extract(config(tmp_path, clip=CLIP))
    assert third.plan.todo.is_empty() and (third.published.published, third.published.tombstoned) == (0, 0)


def keys_of_shards(store: Path) -> Counter[str]:
    """How often each key stands in the shards that lie in a store."""
    found: Counter[str] = Counter()
    for path in (store / "features").rglob("*.tar"):
        with tarfile.open(path) as archive:
            found.update(name.removesuffix(".json") for name in archive.getnames() if name.endswith(".json"))
    return found


def features(manifest: Any, encoder: str = "clip") -> dict[str, Any]:
    rows = manifest.rows(encoder).iter_rows(named=True)
    return {row["video_id"]: read_sample(manifest.store_uri, row)[0] for row in rows}


def test_each_change_of_the_encoders_costs_that_encoder_alone(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(4):
        write_video(tmp_path / "videos" / f"v{number}.mp4", seconds=2.0, seed=number)
    only_clip = extract(config(tmp_path, clip=CLIP))
    clip_shards = shards(tmp_path, "clip")

    added = extract(config(tmp_path, clip=CLIP, c3d=C3D))
    alone = extract(config(tmp_path, store="alone", c3d=C3D))
    assert counts(added) == {"clip": {"done": 4}, "c3d": {"new": 4}}
    assert {need["encoder"] for needs in added.plan.todo["needs"] for need in needs} == {"c3d"}
    assert (added.num_done, added.num_frames) == (4, alone.num_frames)  # each once, and no frame for clip
    assert shards(tmp_path, "clip") == clip_shards
    manifest = open_manifest(str(tmp_path / "store"))
    assert manifest.num_incomplete == 0 and manifest.frame.height == 4 and list(manifest.encoders) == ["c3d", "clip"]
    names = [manifest.rows(name)["shard"].str.split("/").list.tail(2).list.join("/") for name in ("clip", "c3d")]
    assert names[0].equals(names[1])
    expected = features(open_manifest(str(tmp_path / "alone")), "c3d")
    for video_id, array in features(manifest, "c3d").items():
        np.testing.assert_allclose(array, expected[video_id], atol=2e-3)

    c3d_shards = shards(tmp_path, "c3d")
    other_model = extract(config(tmp_path, clip=CLIP | {"seed": 1}, c3d=C3D))
    assert counts(other_model) == {"clip": {"stale": 4}, "c3d": {"done": 4}}
    assert other_model.num_frames == only_clip.num_frames
    assert shards(tmp_path, "c3d") == c3d_shards and clip_shards.items() < shards(tmp_path, "clip").items()

    clip_shards = shards(tmp_path, "clip")
    other_stride = extract(config(tmp_path, clip=CLIP | {"seed": 1}, c3d=C3D | {"stride_frames": 4}))
    assert counts(other_stride) == {"clip": {"done": 4}, "c3d": {"stale": 4}}
    assert {need["encoder"] for needs in other_stride.plan.todo["needs"] for need in needs} == {"c3d"}
    assert shards(tmp_path, "clip") == clip_shards and c3d_shards.items() < shards(tmp_path, "c3d").items()
    assert not verify_store(str(tmp_path / "store")).problems


def test_a_finished_job_opens_and_lists_nothing_per_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the listing of the snapshot itself, which describes each file once and opens none."""
    few, many = rerun_costs(tmp_path / "few", 5, monkeypatch), rerun_costs(tmp_path / "many", 60, monkeypatch)
    assert few.pop("info") + 55 == many.pop("info")
    assert few == many and few["scandir"] > 0


def rerun_costs(folder: Path, num_videos: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return the calls of the second run of a finished job; the catalog's own files are as many for any number."""
    folder.mkdir()
    make_finished(folder, num_videos)
    extract(finished_config(folder))  # the first run imports modules and makes the lease
    calls: Counter[str] = Counter()
    places = [(builtins, "open"), (io, "open"), *((os, name) for name in ("open", "scandir", "listdir", "stat"))]
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "connect", None)  # Ray is not started
        for module, name in [*places, (LocalFileSystem, "info")]:
            patch.setattr(module, name, counting(getattr(module, name), calls, name))
        report = extract(finished_config(folder))
    assert report.published.already_published == num_videos
    return calls


def counting(function: Any, calls: Counter[str], name: str) -> Any:
    def counted(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        return function(*args, **options)

    return counted
