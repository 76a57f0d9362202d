import dataclasses
import random

import pytest

from hvlm.data.splits import order_hash
from pipelines.store.generation import plan_generation, readiness_of, set_folder, shard_tasks
from tests.pipelines.store.world import BOTH, CLIP, CONFIG, World, ids

FINGERPRINTS = {name: column.fingerprint for name, column in BOTH.items()}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(20))
    world.snapshot()
    world.stage()
    return world


def plan(frames, target_bytes=CONFIG.target_shard_bytes):
    readiness = readiness_of(frames, FINGERPRINTS, CONFIG.splits)
    return plan_generation(frames, readiness, FINGERPRINTS, CONFIG.splits, target_bytes)


def test_the_plan_does_not_depend_on_the_order_of_any_table(world):
    frames = world.store.frames(full=True)
    shuffled = dataclasses.replace(
        frames,
        videos=frames.videos.sample(fraction=1, shuffle=True),
        staged=frames.staged.sample(fraction=1, shuffle=True),
    )
    assert plan(frames) == plan(shuffled)
    assert shard_tasks(plan(frames), frames, BOTH, "uri") == shard_tasks(plan(shuffled), shuffled, BOTH, "uri")


def test_samples_are_ordered_by_the_hash_of_their_id_and_fill_shards_one_after_another(world):
    found = plan(world.store.frames(full=True))
    assert [placement.video_id for placement in found.placements] == sorted(ids(20), key=order_hash)
    by_split = {}
    for placement in found.placements:
        by_split.setdefault(placement.split, []).append(placement.shard_name)
    for split, names in by_split.items():
        assert names == sorted(names)
        assert list(dict.fromkeys(names)) == [f"{split}-{index:06d}" for index in range(len(set(names)))]


def test_a_sample_over_the_target_gets_a_shard_of_its_own(world):
    names = [placement.shard_name for placement in plan(world.store.frames(full=True), target_bytes=1).placements]
    assert len(set(names)) == 20


def test_a_large_target_makes_one_shard_per_split(world):
    placements = plan(world.store.frames(full=True), target_bytes=10**9).placements
    assert {placement.shard_name for placement in placements} == {f"{p.split}-000000" for p in placements}


def test_the_cut_is_the_same_whether_features_come_from_staging_or_from_shards(world):
    staged = plan(world.store.frames(full=True))
    world.publish()
    for video_id in ids(20):
        world.add(video_id, summary="x")
    world.snapshot()
    published = plan(world.store.frames(full=True))
    assert [(p.video_id, p.split) for p in published.placements] == [(p.video_id, p.split) for p in staged.placements]
    assert {p.gen for p in published.placements} == {2}
    tasks = shard_tasks(published, world.store.frames(full=True), BOTH, "uri")
    assert all(item.published and not item.segments for task in tasks for item in task.items)


def test_each_video_is_in_exactly_one_class(world):
    world.publish()
    world.add("staged")
    world.add("new")
    world.add("failed")
    world.add("shaky")
    world.remove("video000")
    world.snapshot()
    content = dict(world.store.videos().select("video_id", "content_hash").iter_rows())
    failure = {"stage": "decode", "reason": "truncated", "message": "m", "permanent": True}
    world.store.commit_failures([failure | {"video_id": "failed", "content_hash": content["failed"]}])
    shaky = {"video_id": "shaky", "content_hash": content["shaky"], "reason": "storage_transient", "permanent": False}
    world.store.commit_failures([failure | shaky])
    world.stage(skip=[("new", 0), *(("shaky", segment) for segment in range(3))])
    found = plan(world.store.frames(full=True))
    assert found.done == frozenset(ids(20)) - {"video000"}
    assert [placement.video_id for placement in found.placements] == ["staged"]
    assert (found.failed, found.incomplete, found.tombstones) == (
        frozenset({"failed"}),
        frozenset({"new", "shaky"}),
        ("video000",),
    )


def test_tasks_of_one_generation_name_the_encoder_in_the_folder_only(world):
    frames = world.store.frames(full=True)
    tasks = shard_tasks(plan(frames), frames, BOTH, "uri")
    names = {name: [task.shard.rpartition("/")[2] for task in tasks if task.encoder == name] for name in BOTH}
    assert names["clip"] == names["c3d"]
    assert set_folder("clip", CLIP.fingerprint, 1) == f"features/clip-{CLIP.fingerprint[:8]}/gen-000001"
    assert tasks == sorted(tasks, key=lambda task: (task.gen, task.encoder, task.shard))
    assert random.Random(0).choice(tasks).commit == 1
