"""Compaction: what it moves, what it deletes and when, and that a kill at any moment is mended by running it again."""

import datetime as dt
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from pipelines.store.encoders import EncoderColumn
from pipelines.store.lease import StoreIsHeld
from pipelines.store.liveness import live_samples
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.upkeep import compact as compact_module
from pipelines.store.upkeep.compact import CompactConfig, CompactSummary, compact
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.store.test_publish import Killed, check_contents
from tests.pipelines.store.world import BOTH, CLIP, CONFIG, World, column, ids, tree


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eleven of twelve videos of generation 1 left, one of them replaced; two more generations. Not to be changed."""
    world = World(tmp_path_factory.mktemp("worn") / "store")
    world.add(*ids(12))
    world.run()
    world.add("late1", "late2")
    world.run()
    world.add("video003", content="v2")
    world.remove("video001")
    world.remove("video002")
    world.run()
    return world


@pytest.fixture
def world(worn: World, tmp_path: Path) -> World:
    return copied(worn, tmp_path / "store")


def copied(world: World, root: Path) -> World:
    shutil.copytree(world.root, root)
    return World(root, dict(world.videos))


def run(world: World, **changes: Any) -> CompactSummary:
    return compact(CompactConfig(store_uri=str(world.root), **{"keep_versions_days": 0, **changes}))


def shards(world: World, gen: int) -> dict[str, str]:
    """{encoder, shard: sha256} of a generation, without its number."""
    pattern = re.compile(rf"features/(\w+)-\w+/gen-{gen:06d}/(.*\.tar)")
    return {
        "/".join(m.groups()): digest for path, digest in tree(Path(world.root)).items() if (m := pattern.match(path))
    }


def test_live_samples_move_dead_ones_go_and_the_store_is_that_of_a_fresh_publish(world: World, tmp_path: Path) -> None:
    done = run(world)
    assert (done.rewritten, done.generation, done.dropped, done.kept) == ((1, 2, 3), 4, (1, 2, 3), ())
    assert (done.num_videos, done.num_samples, done.num_dead) == (12, 24, 6)
    assert set(live_samples(world.store.samples())["gen"]) == {4}
    check_contents(world)
    assert verify_store(str(world.root)).orphans == ()
    fresh = World(tmp_path / "fresh")
    fresh.videos = world.videos
    fresh.run()
    assert shards(world, 4) == shards(fresh, 1) and len(shards(fresh, 1)) == done.shards > 6
    assert {path for path in tree(Path(world.root)) if path.endswith(".tar")} == set(
        live_samples(world.store.samples())["shard"]
    )


def test_shards_are_cut_as_the_last_publish_cut_them_unless_told_otherwise(world: World, tmp_path: Path) -> None:
    told, coarse = copied(world, tmp_path / "told"), copied(world, tmp_path / "coarse")
    run(world)
    run(told, target_shard_bytes=CONFIG.target_shard_bytes)
    run(coarse, target_shard_bytes=2**20)
    assert shards(world, 4) == shards(told, 4) and len(shards(world, 4)) > len(shards(coarse, 4))


def test_copies_of_contents_that_are_gone_go_too(world: World) -> None:
    copy = Path(world.root) / "frames/aa/aaaa-256-0.copy"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"x")
    run(world)
    assert not copy.exists()


def test_running_it_again_does_nothing(world: World) -> None:
    first = run(world)
    before = catalog_and_shards(world)
    again = run(world)
    assert (again.rewritten, again.dropped, again.num_swept, again.version) == ((), (), 0, first.version)
    assert catalog_and_shards(world) == before
    assert world.run().published == 0 and world.plan().todo.is_empty()


def catalog_and_shards(world: World) -> dict[str, str]:
    return {
        path: digest for path, digest in tree(Path(world.root), ".").items() if not path.startswith("catalog/lease")
    }


def test_old_versions_stay_readable_until_their_days_are_over(world: World) -> None:
    pinned = open_manifest(str(world.root))
    done = run(world, keep_versions_days=30)
    assert (done.rewritten, done.dropped, done.kept, done.num_swept) == ((1, 2, 3), (), (1, 2, 3), 0)
    assert done.kept_bytes > 0
    old = open_manifest(str(world.root), version=pinned.version)
    assert old.manifest_hash == pinned.manifest_hash
    for row in old.rows("clip").to_dicts():
        read_sample(str(world.root), row)
    assert verify_store(str(world.root)).orphans == verify_store(str(world.root), pinned.version).problems == ()
    assert run(world, keep_versions_days=30).dropped == ()
    age(world, days=29)
    assert run(world, keep_versions_days=30).dropped == ()
    age(world, days=31)
    assert run(world, keep_versions_days=30).dropped == (1, 2, 3)
    check_contents(world)


def age(world: World, days: float) -> None:
    """Make every commit so many days old."""
    moment = dt.datetime.now().timestamp() - days * 86400
    for path in (Path(world.root) / "catalog" / "samples" / "_delta_log").glob("*.json"):
        os.utime(path, (moment, moment))


def test_a_pinned_version_whose_shards_are_deleted_says_so(world: World) -> None:
    pinned = open_manifest(str(world.root)).version
    newest = run(world).version
    with pytest.raises(UserError, match=rf"(?s)version {pinned} .*generation 1, 2, 3.*the newest is {newest}"):
        open_manifest(str(world.root), version=pinned)
    with pytest.raises(UserError, match=r"jobs\.compact has deleted"):
        verify_store(str(world.root), version=pinned)
    assert open_manifest(str(world.root), version=newest).frame.height == 12


def test_a_deleted_video_that_comes_back_is_extracted_again_only_once_its_shard_is_gone(world: World) -> None:
    run(world, keep_versions_days=30)
    world.add("video001")
    world.snapshot()
    assert world.plan().todo.is_empty() and world.publish().published == 1
    check_contents(world)
    run(world)
    world.add("video002")
    world.snapshot()
    assert world.plan().todo["video_id"].to_list() == ["video002"]
    world.stage(skip=[("video002", 1)])
    world.publish()
    assert world.store.staged().height == 4  # half staged: not taken for published
    world.run()
    check_contents(world)


def test_small_generations_are_merged_and_full_ones_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    world.add(*ids(30))
    world.run()
    before = shards(world, 1)
    for name in ("a", "b", "c"):
        world.add(name)
        world.run()
    done = run(world)
    assert (done.rewritten, done.dropped, done.generation) == ((2, 3, 4), (2, 3, 4), 5)
    assert done.shards < done.shards_before
    assert shards(world, 1) == before
    assert run(world).rewritten == ()
    check_contents(world)


def test_a_few_dead_samples_can_be_let_be(world: World) -> None:
    assert run(world, max_dead_fraction=0.3, target_shard_bytes=4096).rewritten == ()
    assert run(world, max_dead_fraction=0.2, target_shard_bytes=4096).rewritten == (1,)
    check_contents(world)


def test_every_fingerprint_moves_and_a_parallel_set_may_have_gaps(world: World) -> None:
    new = BOTH | {"clip": column("clip", 8, version=1)}
    world.snapshot()
    world.stage(new, skip=[("video004", 0)])
    world.publish(new)
    old = open_manifest(str(world.root), [f"clip-{CLIP.fingerprint[:8]}", "c3d"])
    done = run(world)
    assert done.num_samples == 12 * 3 - 1
    again = open_manifest(str(world.root), [f"clip-{CLIP.fingerprint[:8]}", "c3d"])
    digests = ["video_id", "clip.sample_sha256", "c3d.sample_sha256"]
    assert again.frame.select(digests).sort("video_id").equals(old.frame.select(digests).sort("video_id"))
    assert open_manifest(str(world.root)).num_incomplete == 1
    assert world.run(new).published == 1
    check_contents(world, new)


def test_superseded_fingerprints_are_left_out_when_asked_and_readers_of_them_are_told(world: World) -> None:
    new = BOTH | {"clip": column("clip", 8, version=1)}
    world.snapshot()
    world.stage(new, skip=[("video004", 0)])
    world.publish(new)
    pinned, old = world.store.samples_version(), f"clip-{CLIP.fingerprint[:8]}"
    done = run(world, drop_superseded=True, keep_versions_days=30)
    assert (done.num_samples, done.num_superseded) == (12 * 2, 11)
    assert run(world, drop_superseded=True, keep_versions_days=30).rewritten == ()
    kept = open_manifest(str(world.root), [old]).frame["video_id"].to_list()
    assert kept == ["video004"]  # nothing newer could take its place
    assert open_manifest(str(world.root), [old], version=pinned).frame.height == 12
    assert world.run(new).published == 1
    check_contents(world, new)
    run(world, drop_superseded=True)
    with pytest.raises(UserError, match=rf"{old}: .*left out.*clip-{new['clip'].fingerprint[:8]}"):
        open_manifest(str(world.root), [old])
    check_contents(world, new)


def test_a_snapshot_that_is_not_published_yet_changes_nothing(world: World) -> None:
    """Compaction copies what is published, not what the videos are about to become."""
    before = open_manifest(str(world.root)).frame
    world.add("video005", summary="new text")
    world.add("video006", content="v2")
    world.remove("video007")
    world.snapshot()
    run(world)
    columns = ["video_id", "content_hash", "metadata_hash", "clip.sample_sha256", "c3d.sample_sha256"]
    after = open_manifest(str(world.root)).frame
    assert after.select(columns).sort("video_id").equals(before.select(columns).sort("video_id"))
    world.stage()
    world.publish()
    check_contents(world)


@pytest.mark.parametrize("moment", ["shards", "half a shard", "check_written", "_drop", "sweep_orphans"])
def test_a_kill_at_any_moment_is_mended_by_the_next_job(
    world: World, worn: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    def some(function: Any, tasks: Any) -> Any:
        yield from map(function, tasks[:3])
        if moment == "half a shard":
            (Path(world.root) / tasks[3].shard).with_suffix(".tar.tmp-1234").write_bytes(b"half")
        raise Killed

    config = CompactConfig(store_uri=str(world.root), keep_versions_days=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment in ("shards", "half a shard"):
            compact(config, some)
        else:
            patch.setattr(compact_module, moment, kill)
            compact(config)
    committed = moment in ("_drop", "sweep_orphans")
    assert (open_manifest(str(world.root)).manifest_hash != open_manifest(str(worn.root)).manifest_hash) == committed
    extracted = copied(world, tmp_path / "extracted")
    straight = copied(worn, tmp_path / "straight")
    run(straight)
    run(world)
    assert tree(Path(world.root)) == tree(Path(straight.root))
    check_contents(world)
    extracted.add("later")
    extracted.run()
    check_contents(extracted)
    assert verify_store(str(extracted.root)).orphans == ()


def test_a_lost_row_stops_it_before_the_commit(world: World) -> None:
    version = world.store.samples_version()
    with pytest.raises(RuntimeError, match="row conservation"):
        compact(
            CompactConfig(store_uri=str(world.root)),
            lambda function, tasks: map(function, tasks[1:]),
        )
    assert world.store.samples_version() == version


def test_one_writer(world: World) -> None:
    with world.store.writing("jobs.extract"), pytest.raises(StoreIsHeld, match=r"jobs\.extract"):
        run(world)


def test_everything_gone_and_nothing_there(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    assert run(world).rewritten == ()
    world.add("a")
    world.run()
    world.remove("a")
    world.run()
    done = run(world)
    assert (done.rewritten, done.dropped, done.num_samples) == ((), (1,), 0)
    assert tree(tmp_path / "store", "features").keys() == {
        f"features/{name}-{encoder.fingerprint[:8]}/encoder.json" for name, encoder in BOTH.items()
    }


def test_the_label_of_the_encoder_stays(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    world.add("a", "b")
    named = EncoderColumn(fingerprint=CLIP.fingerprint, dim=CLIP.dim, identity=CLIP.identity, label="ViT-B-32")
    world.run({"clip": named})
    world.remove("a")
    world.run({"clip": named})
    run(world)
    row = open_manifest(str(world.root)).rows("clip").row(0, named=True)
    assert read_sample(str(world.root), row)[1].extractor == "ViT-B-32"


@pytest.mark.parametrize(
    "change", [{"target_shard_bytes": 10}, {"max_dead_fraction": 1.0}, {"keep_versions_days": -1.0}]
)
def test_bad_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        CompactConfig(store_uri="x", **change)
