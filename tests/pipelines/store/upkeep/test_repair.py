"""What is damaged is extracted again and nothing else; every other file keeps its bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.lease import LeaseLost
from pipelines.store.liveness import live_samples
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.shards import DamagedShardError
from pipelines.store.staging import write_staging_tar
from pipelines.store.upkeep import repair as repair_module
from pipelines.store.upkeep.compact import CompactConfig, compact
from pipelines.store.upkeep.repair import ExtractedAgain, RepairReport, repair
from pipelines.store.upkeep.verify import Problem, verify_store
from tests.pipelines.store.test_publish import check_contents
from tests.pipelines.store.world import BOTH, World, ids, planted_features, tree


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


class Extraction:
    """Makes the planted features again; `off` is added to them, `gone` are videos without a file."""

    def __init__(self, world: World, off: float = 0.0, gone: tuple[str, ...] = ()) -> None:
        self.world, self.off, self.gone, self.asked = world, off, gone, list[tuple[str, str]]()

    def __call__(self, samples: pl.DataFrame) -> ExtractedAgain:
        segments, failed = {}, {}
        for row in samples.iter_rows(named=True):
            self.asked.append((row["video_id"], row["encoder"]))
            sample = (row["video_id"], row["encoder"], row["fingerprint"])
            if row["video_id"] in self.gone:
                failed[sample] = "its file is gone"
                continue
            items = [self.world._item(row, row["encoder"], BOTH[row["encoder"]], number) for number in range(3)]
            for item in items:
                object.__setattr__(item, "features", (item.features + self.off).astype(np.float16))
            segments[sample] = write_staging_tar(str(self.world.root), "again", items)
        return ExtractedAgain(segments, failed)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "store")
    world.add(*ids(10))
    world.run()
    return world


def live(world: World, encoder: str = "clip") -> pl.DataFrame:
    return live_samples(world.store.samples()).filter(pl.col("encoder") == encoder).sort("shard", "offset")


def flip(world: World, row: dict[str, Any], at: int = 700) -> None:
    path = Path(world.root) / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["offset"] + at] ^= 1
    path.write_bytes(data)


def problems(world: World) -> tuple[Problem, ...]:
    return verify_store(str(world.root)).problems


def repaired(world: World, extraction: Extraction) -> RepairReport:
    report = repair(world.store, problems(world), extraction)
    assert problems(world) == () or report.failed
    assert tree(Path(world.root), "staging") == {}
    return report


@pytest.mark.parametrize("encoder", ["clip", "c3d"])
def test_one_flipped_bit_is_mended_with_its_old_bytes(world: World, encoder: str) -> None:
    before, version = tree(Path(world.root)), world.store.samples_version()
    row = live(world, encoder).row(4, named=True)
    flip(world, row)
    extraction = Extraction(world)
    report = repaired(world, extraction)
    assert extraction.asked == [(row["video_id"], encoder)]
    assert (report.mended, report.moved, report.extracted) == ([row["shard"]], [], {row["video_id"]})
    assert tree(Path(world.root)) == before and world.store.samples_version() == version


def test_a_lost_shard_and_one_without_its_end_are_mended(world: World) -> None:
    before = tree(Path(world.root))
    lost, cut = (live(world, name).row(0, named=True) for name in ("clip", "c3d"))
    (Path(world.root) / lost["shard"]).unlink()
    path = Path(world.root) / cut["shard"]
    path.write_bytes(path.read_bytes()[:-1024])
    extraction = Extraction(world)
    report = repaired(world, extraction)
    inside = live(world).filter(pl.col("shard") == lost["shard"])["video_id"]
    assert sorted(extraction.asked) == sorted((video_id, "clip") for video_id in inside)
    assert sorted(report.mended) == sorted([lost["shard"], cut["shard"]]) and tree(Path(world.root)) == before


def test_other_bytes_move_the_videos_of_the_shard_to_a_new_generation(world: World) -> None:
    row = live(world).row(4, named=True)
    flip(world, row)
    before, pinned = tree(Path(world.root)), open_manifest(str(world.root))
    extraction = Extraction(world, off=0.001)
    report = repaired(world, extraction)
    assert extraction.asked == [(row["video_id"], "clip")]
    assert (report.mended, report.moved) == ([], [row["shard"]])
    after = tree(Path(world.root))
    assert {name: after[name] for name in before} == before  # the damaged shard stays for those who pin it
    inside = set(pinned.frame.filter(pl.col("clip.shard") == row["shard"])["video_id"])
    manifest = open_manifest(str(world.root))
    assert set(manifest.frame.filter(pl.col("gen") == 2)["video_id"]) == inside and manifest.num_incomplete == 0
    assert (manifest.frame.height, manifest.version) == (10, pinned.version + 1)
    for sample in manifest.frame.iter_rows(named=True):
        for name in BOTH:
            wanted = planted_features(sample["content_hash"], name, BOTH[name])
            again = (sample["video_id"], name) == (row["video_id"], "clip")
            found = read_sample(str(world.root), sample, name)[0]
            assert np.array_equal(found, (wanted + 0.001).astype(np.float16) if again else wanted)
    folders = {name.rpartition("/")[0] for name in after if "gen-000002" in name}
    assert len(folders) == 2 and all(f"{folder}/manifest.json" in after for folder in folders)
    assert set(world.plan().status["status"]) == {"done"} and world.publish().published == 0


@pytest.mark.parametrize("off", [0.0, 0.001], ids=["mended", "moved"])
def test_a_snapshot_that_waits_for_its_extraction_lends_no_words_to_old_features(world: World, off: float) -> None:
    row = live(world).row(4, named=True)
    flip(world, row)
    world.add(row["video_id"], content="v2", captions=[{"text": "of the new file", "segment": None}])
    world.snapshot()
    report = repaired(world, Extraction(world, off=off))
    assert (report.mended, report.moved) == (([row["shard"]], []) if off == 0 else ([], [row["shard"]]))
    after = live(world).filter(pl.col("video_id") == row["video_id"]).row(0, named=True)
    assert after["metadata_hash"] == row["metadata_hash"]
    assert read_sample(str(world.root), after)[1].captions == []


def test_a_sample_that_only_differs_is_extracted_too(world: World) -> None:
    row = live(world).row(2, named=True)
    extraction = Extraction(world, off=0.5)
    report = repair(world.store, [Problem(row["shard"], row["key"], row["video_id"], "differs")], extraction)
    assert extraction.asked == [(row["video_id"], "clip")] and report.moved == [row["shard"]]
    sample = open_manifest(str(world.root)).frame.filter(pl.col("video_id") == row["video_id"]).row(0, named=True)
    wanted = planted_features(row["content_hash"], "clip", BOTH["clip"])
    assert np.array_equal(read_sample(str(world.root), sample, "clip")[0], (wanted + 0.5).astype(np.float16))


def test_a_video_without_its_file_stays_and_is_named(world: World) -> None:
    rows = live(world).filter(pl.col("shard") == live(world)["shard"][0]).to_dicts()
    assert len(rows) > 2
    flip(world, rows[0])
    flip(world, rows[1])
    gone = rows[0]["video_id"]
    report = repaired(world, Extraction(world, gone=(gone,)))
    assert [sample[0] for sample in report.failed] == [gone] and report.moved == [rows[0]["shard"]]
    assert {problem.video_id for problem in problems(world) if problem.key} >= {gone}
    moved = live(world).filter(pl.col("gen") == 2)["video_id"]
    assert sorted(moved) == sorted(row["video_id"] for row in rows[1:])
    world.remove(gone)
    world.snapshot()
    world.publish()
    assert {sample[0] for sample in repaired(world, Extraction(world)).lost} == {gone}
    assert problems(world) == ()


def test_a_storage_that_fails_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row, before = live(world).row(4, named=True), tree(Path(world.root))

    def failing(uri: str, offset: int, size: int) -> bytes:
        raise TimeoutError("timed out")

    monkeypatch.setattr(storage, "read_range", failing)
    extraction = Extraction(world)
    with pytest.raises(UserError, match=r"TimeoutError.*a storage that answers"):
        repair(world.store, [Problem(row["shard"], "", "", "sha256")], extraction)
    assert extraction.asked == [] and tree(Path(world.root)) == before


def test_what_only_the_catalog_contradicts_stays_as_it_is(world: World) -> None:
    rows = live(world).filter(pl.col("shard") == live(world)["shard"][0]).to_dicts()
    odd = Problem(rows[0]["shard"], rows[0]["key"], rows[0]["video_id"], "live 2 times", in_catalog=True)
    extraction, before, version = Extraction(world, off=0.001), tree(Path(world.root)), world.store.samples_version()
    assert repair(world.store, [odd], extraction) == RepairReport()
    assert extraction.asked == [] and tree(Path(world.root)) == before and world.store.samples_version() == version
    flip(world, rows[0])
    flip(world, rows[1])
    report = repair(world.store, [odd, *problems(world)], extraction)
    assert extraction.asked == [(rows[1]["video_id"], "clip")] and report.moved == [rows[0]["shard"]]
    assert [(sample[0], "contradicts" in why) for sample, why in report.failed.items()] == [(odd.video_id, True)]
    moved = live(world).filter(pl.col("gen") == 2)["video_id"]
    assert sorted(set(moved)) == sorted(row["video_id"] for row in rows[1:]) and report.lost == set()


def test_a_shard_that_a_compaction_dropped_since_needs_no_repair(world: World) -> None:
    flip(world, live(world).row(0, named=True))
    found = problems(world)
    for video_id in ids(10):
        world.add(video_id, content="v2")
    world.run()
    compact(CompactConfig(store_uri=str(world.root), keep_versions_days=0))
    assert found and repair(world.store, found, Extraction(world)) == RepairReport()


def test_a_dead_sample_costs_no_extraction(world: World) -> None:
    rows = live(world).filter(pl.col("shard") == live(world)["shard"][0]).to_dicts()
    world.add(rows[0]["video_id"], content="v2")
    world.run()
    flip(world, rows[0])
    extraction = Extraction(world)
    report = repaired(world, extraction)
    assert extraction.asked == [] and report.moved == [rows[0]["shard"]]


def test_many_damaged_shards_read_the_samples_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in live(world).unique("shard").to_dicts():
        flip(world, row)
    found, samples, read = problems(world), FeatureStore.samples, list[int]()
    monkeypatch.setattr(FeatureStore, "samples", lambda self, *versions: read.append(1) or samples(self, *versions))
    report = repair(world.store, found, Extraction(world, off=0.001))
    assert len(report.moved) > 1 == len(read)
    monkeypatch.undo()
    assert problems(world) == () and set(live(world)["gen"]) >= {2, 3}


@pytest.mark.parametrize("damage", ["flipped", "lost"])
@pytest.mark.parametrize("all_gone", [False, True], ids=["shard half alive", "generation dead"])
@pytest.mark.parametrize("new_id", ["video004", "elsewhere"])
def test_a_video_whose_dead_sample_is_damaged_comes_back(
    world: World, new_id: str, all_gone: bool, damage: str
) -> None:
    contents = dict(world.videos)
    row = live(world).filter(pl.col("video_id") == "video004").row(0, named=True)
    for video_id in ids(10) if all_gone else ["video004"]:
        world.remove(video_id)
    world.run()
    (Path(world.root) / row["shard"]).unlink() if damage == "lost" else flip(world, row)
    world.videos[new_id] = contents["video004"]
    for _ in range(2):  # however often it is tried
        with pytest.raises(DamagedShardError, match=r"jobs\.verify .* repair=true"):
            world.run()
    assert world.store.staged().is_empty()  # its features were published once: nothing was extracted
    extraction = Extraction(world)
    report = repaired(world, extraction)
    assert ("video004", "clip", row["fingerprint"]) in report.lost and not report.failed
    assert ("video004", "clip") not in extraction.asked and problems(world) == ()
    todo = world.plan().todo.to_dicts()
    assert [(video["video_id"], [need["encoder"] for need in video["needs"]]) for video in todo] == [(new_id, ["clip"])]
    assert world.run().published == 1
    check_contents(world)
    assert repaired(world, extraction).lost == set()


def test_a_damaged_sample_of_a_renamed_video_is_given_up_though_no_publish_has_retired_it(world: World) -> None:
    row = live(world).filter(pl.col("video_id") == "video004").row(0, named=True)
    flip(world, row)
    world.videos["elsewhere"] = world.videos.pop("video004")
    with pytest.raises(DamagedShardError, match="video 'elsewhere'"):
        world.run()
    report = repaired(world, Extraction(world, gone=("video004",)))
    assert {sample[0] for sample in report.failed} == {sample[0] for sample in report.lost} == {"video004"}
    assert {problem.video_id for problem in problems(world)} == {"video004", ""}  # it is live until the next publish
    assert world.run().published == 1
    check_contents(world)


def test_a_repair_that_loses_its_lease_after_the_commit_deletes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(world, live(world).row(4, named=True))
    found, commit = problems(world), FeatureStore.commit_samples

    def lost(self: FeatureStore) -> None:
        raise LeaseLost("taken over")

    def commit_and_lose(self: FeatureStore, frame: pl.DataFrame, expected_version: int) -> int:
        version = commit(self, frame, expected_version)
        patch.setattr(FeatureStore, "check_lease", lost)
        return version

    with monkeypatch.context() as patch, pytest.raises(LeaseLost):
        patch.setattr(FeatureStore, "commit_samples", commit_and_lose)
        repair(world.store, found, Extraction(world, off=0.001))
    assert len(tree(Path(world.root), "staging")) == 1 and problems(world) == ()


def after_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> None:
    """Kill at the `calls`-th call of a function, before it does anything."""
    original: Callable[..., Any] = getattr(owner, name)
    left = [calls]

    def kill(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, kill)


STEPS: list[tuple[Any, str, int]] = [
    (repair_module, "make_sample", 1),
    (storage, "atomic_write", 2),
    (storage, "atomic_write", 4),
    (storage, "remove", 1),
]
STEPS_OF_A_MOVE: list[tuple[Any, str, int]] = [
    (repair_module, "write_shard", 2),
    (repair_module, "write_manifests", 1),
    (FeatureStore, "commit_samples", 1),
]


@pytest.mark.parametrize(
    ("off", "owner", "name", "calls"),
    [(0.0, *step) for step in STEPS] + [(0.001, *step) for step in STEPS + STEPS_OF_A_MOVE],
)
def test_killed_between_any_two_steps_the_next_repair_ends_well(
    world: World, monkeypatch: pytest.MonkeyPatch, off: float, owner: Any, name: str, calls: int
) -> None:
    before = {row["video_id"]: row for row in live(world).to_dicts()}
    hit = [live(world).row(0, named=True), live(world, "c3d").row(9, named=True)]
    for row in hit:
        flip(world, row)
    sound = {k: v for k, v in tree(Path(world.root)).items() if k not in {row["shard"] for row in hit}}
    with monkeypatch.context() as patched, pytest.raises(Killed):
        after_calls(patched, owner, name, calls)
        repair(world.store, problems(world), Extraction(world, off))
    repaired(world, Extraction(world, off))
    after = tree(Path(world.root))
    assert {name: after.get(name) for name in sound} == sound
    assert {row["video_id"] for row in live(world).to_dicts()} == set(before)
    known = {name for name in after if name.endswith(".tar")}
    assert known == set(world.store.samples().filter(pl.col("state") == "live")["shard"])
    manifests = [json.loads((Path(world.root) / name).read_text()) for name in after if name.endswith("manifest.json")]
    assert {shard["sha256"] for manifest in manifests for shard in manifest["shards"].values()} == set(
        world.store.samples().filter(pl.col("state") == "live")["shard_sha256"]
    )
