import dataclasses
import json
import random

import numpy as np
import polars as pl
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from hvlm.errors import JobError, UserError
from infra import storage
from pipelines.store import publish as publish_module
from pipelines.store.catalog import FeatureStore
from pipelines.store.lease import LeaseLost
from pipelines.store.liveness import live_samples
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.odd_rows import OddRowsError
from pipelines.store.publish import PublishConfig
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.store import world as world_module
from tests.pipelines.store.world import BOTH, C3D, CLIP, World, column, ids, planted_features, tree


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "store")


def live_map(world):
    """{(video, encoder): generation} of what is live."""
    live = live_samples(world.store.samples())
    return {(row["video_id"], row["encoder"]): row["gen"] for row in live.to_dicts()}


def check_contents(world, encoders=BOTH):
    """Every video of the snapshot is readable and has exactly the features of its content."""
    assert verify_store(str(world.root)).problems == ()
    manifest = open_manifest(str(world.root))
    assert set(manifest.frame["video_id"]) == set(world.videos)
    contents = dict(world.store.videos().select("video_id", "content_hash").iter_rows())
    for name, encoder in encoders.items():
        assert manifest.encoders[name] == encoder.fingerprint
        for row in manifest.rows(name).to_dicts():
            features, meta = read_sample(str(world.root), row)
            assert (features == planted_features(contents[row["video_id"]], name, encoder)).all()
            assert (meta.video_id, meta.fingerprint, meta.split) == (row["video_id"], encoder.fingerprint, row["split"])
            assert meta.timestamps_s == [float(index) for index in range(len(features))]


def test_first_publish_holds_every_video_once_and_leaves_no_staging(world):
    world.add(*ids(20), "name with spaces.é")
    summary = world.run()
    assert (summary.published, summary.samples, summary.incomplete, summary.failed) == (21, 42, 0, 0)
    check_contents(world)
    assert tree(world.root, "staging") == {}
    assert world.store.staged().is_empty()


def test_running_again_does_nothing(world):
    world.add(*ids(5))
    first = world.run()
    before = tree(world.root, ".")
    again = world.run()
    assert (again.published, again.already_published, again.version) == (0, 5, first.version)
    assert tree(world.root, ".") == before


def test_bytes_do_not_depend_on_arrival_tars_or_workers(tmp_path):
    def build(name, order, per_tar, run_tasks):
        world = World(tmp_path / name)
        world.add(*ids(20))
        world.snapshot()
        world.stage(order=order, run_id=name, per_tar=per_tar)
        world.publish(run_tasks=run_tasks)
        return tree(world.root)

    def shuffled(function, tasks):
        results = [function(task) for task in random.Random(3).sample(tasks, len(tasks))]
        return reversed(results)

    assert build("a", 1, 5, publish_module.run_inline) == build("b", -1, 7, shuffled)


def test_a_killed_and_resumed_run_gives_the_same_bytes(tmp_path):
    straight = World(tmp_path / "straight")
    straight.add(*ids(12))
    straight.run()
    killed = World(tmp_path / "killed")
    killed.add(*ids(12))
    killed.snapshot()
    killed.stage(skip=[(video_id, 1) for video_id in ids(12)[::2]])
    assert killed.plan().counts["clip"]["partial"] == 6
    killed.run(run_id="second")
    assert tree(killed.root) == tree(straight.root)


def test_encoders_of_a_generation_share_names_keys_and_order(world):
    world.add(*ids(30))
    world.run()
    samples = world.store.samples().filter(pl.col("state") == "live")
    packed = {
        name: [(row["shard"].rpartition("/")[2], row["key"]) for row in rows.sort("shard", "offset").to_dicts()]
        for (name,), rows in samples.group_by("encoder")
    }
    assert packed["clip"] == packed["c3d"]
    assert len({shard for shard, _ in packed["clip"]}) > 4
    assert len({shard for shard, _ in packed["clip"] if shard.startswith("train")}) > 1


def test_shards_are_cut_before_the_target(world):
    world.add(*ids(30))
    world.snapshot()
    world.stage()
    target = 40_000
    summary = world.publish(config=PublishConfig(target_shard_bytes=target))
    totals = {}
    for row in world.store.samples().filter(pl.col("state") == "live").unique("shard").to_dicts():
        name = row["shard"].rpartition("/")[2]
        totals[name] = totals.get(name, 0) + row["shard_bytes"]
    assert max(totals.values()) <= target
    assert summary.shards == 2 * len(totals)


def test_new_videos_go_into_a_new_generation_and_published_files_stay(world):
    world.add(*ids(10))
    world.run()
    before = tree(world.root)
    world.add("late1", "late2")
    assert world.run().published == 2
    assert before.items() <= tree(world.root).items()
    assert {gen for (video, _), gen in live_map(world).items() if video.startswith("late")} == {2}
    check_contents(world)


def test_a_changed_video_gets_a_new_generation_and_its_old_sample_is_dead(world):
    world.add(*ids(6))
    world.run()
    world.add("video003", content="v2")
    world.snapshot()
    assert world.plan().counts["clip"] == dict.fromkeys(world.plan().counts["clip"], 0) | {"done": 5, "changed": 1}
    assert live_map(world)["video003", "clip"] == 1
    world.stage()
    world.publish()
    assert live_map(world)["video003", "clip"] == live_map(world)["video003", "c3d"] == 2
    check_contents(world)


def test_changed_annotations_republish_the_sample_without_extraction(world):
    world.add(*ids(4))
    world.run()
    world.add(
        "video001", annotations=[{"label": "jump", "segment": [1.0, 99.0]}], summary="a jump", columns={"camera": 2}
    )
    world.snapshot()
    plan = world.plan()
    assert plan.todo.is_empty() and plan.counts["clip"]["relabelled"] == 1
    assert world.publish().published == 1
    row = open_manifest(str(world.root)).rows("c3d").row(by_predicate=pl.col("video_id") == "video001", named=True)
    _, meta = read_sample(str(world.root), row)
    assert meta.annotations == [{"label": "jump", "segment": [1.0, 30.0]}]
    assert (meta.summary, meta.columns) == ("a jump", {"camera": 2})
    check_contents(world)


def test_a_gone_video_is_tombstoned_and_a_returned_one_needs_no_extraction(world):
    world.add(*ids(4))
    world.run()
    kept = world.videos["video002"]
    world.remove("video002")
    assert world.run().tombstoned == 1
    check_contents(world)
    assert world.run().tombstoned == 0
    world.videos["video002"] = kept
    world.snapshot()
    assert world.plan().todo.is_empty()
    assert world.publish().published == 1
    check_contents(world)


def test_a_renamed_video_keeps_its_features_under_its_new_id(world):
    world.add(*ids(4))
    world.run()
    world.videos["new name"] = world.videos.pop("video002")
    world.snapshot()
    assert world.plan().todo.is_empty()
    summary = world.publish()
    assert (summary.published, summary.tombstoned) == (1, 1)
    check_contents(world)


def test_an_added_encoder_gets_a_parallel_set_and_rewrites_nothing(world):
    world.add(*ids(15))
    world.run({"clip": CLIP})
    world.add("late")
    world.run({"clip": CLIP})
    before = tree(world.root)
    summary = world.run(BOTH)
    assert before.items() <= tree(world.root).items()
    assert set(live_map(world).values()) == {1, 2}
    assert summary.samples == 16
    samples = world.store.samples().filter(pl.col("state") == "live")
    packed = {
        name: [
            (row["gen"], row["shard"].rpartition("/")[2], row["key"])
            for row in rows.sort("gen", "shard", "offset").to_dicts()
        ]
        for (name,), rows in samples.group_by("encoder")
    }
    assert packed["clip"] == packed["c3d"]
    check_contents(world)


def test_a_changed_fingerprint_makes_that_encoder_stale_and_only_that_one(world):
    world.add(*ids(6))
    world.run()
    pinned = open_manifest(str(world.root))
    new = BOTH | {"clip": column("clip", 8, version=1)}
    plan = world.plan(new)
    assert plan.counts["clip"]["stale"] == 6 and plan.counts["c3d"]["done"] == 6
    assert plan.todo["needs"].to_list()[0] == [{"encoder": "clip", "staged_segments": []}]
    world.run(new)
    check_contents(world, new)
    old = open_manifest(str(world.root), version=pinned.version)
    assert (old.manifest_hash, old.encoders["clip"]) == (pinned.manifest_hash, CLIP.fingerprint)
    back = world.run(BOTH)
    assert back.samples == 0 and open_manifest(str(world.root)).encoders["clip"] == CLIP.fingerprint
    check_contents(world)


def test_a_video_that_one_encoder_lacks_is_not_published(world):
    world.add(*ids(4))
    world.snapshot()
    world.stage({"clip": CLIP})
    world.stage(skip=[("video000", 2)])
    summary = world.publish()
    assert (summary.published, summary.incomplete) == (3, 1)
    assert set(world.store.staged()["video_id"]) == {"video000"}
    assert world.run().published == 1
    check_contents(world)


def test_a_late_video_of_an_added_encoder_moves_to_a_new_generation(world):
    world.add(*ids(4))
    world.run({"clip": CLIP})
    world.stage(BOTH, skip=[("video000", 2)])
    world.publish()
    assert live_map(world)["video001", "c3d"] == 1 and ("video000", "c3d") not in live_map(world)
    world.run()
    assert live_map(world)["video000", "c3d"] == live_map(world)["video000", "clip"] == 2
    check_contents(world)


def test_failed_videos_are_counted_and_spoilt_ones_leave(world):
    world.add(*ids(4))
    world.run()
    world.add("video001", content="broken")
    world.add("video009", content="broken")
    world.snapshot()
    for row in world.plan().todo.to_dicts():
        failure = {"stage": "decode", "reason": "truncated", "message": "ends at frame 3", "permanent": True}
        world.store.commit_failures([failure | {name: row[name] for name in ("video_id", "content_hash")}])
    summary = world.publish()
    assert (summary.failed, summary.already_published, summary.incomplete, summary.tombstoned) == (2, 3, 0, 1)
    assert ("video001", "clip") not in live_map(world)
    assert world.publish().tombstoned == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["shards", "half a shard", "commit", "clean_up"])
def test_a_kill_at_any_moment_of_a_publish_is_mended_by_the_next(tmp_path, monkeypatch, moment):
    straight, world = World(tmp_path / "straight"), World(tmp_path / "killed")
    for each in (straight, world):
        each.add(*ids(12))
        each.snapshot()
        each.stage()
    straight.publish()

    def kill(*_):
        raise Killed

    def some(function, tasks):
        yield from map(function, tasks[:3])
        if moment == "half a shard":
            (world.root / tasks[3].shard).with_suffix(".tar.tmp-1234").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment in ("commit", "clean_up"):
            patch.setattr(publish_module, moment, kill)
            world.publish()
        else:
            world.publish(run_tasks=some)
    published_before = not world.store.samples().is_empty()
    assert published_before == (moment == "clean_up")
    world.publish()
    assert tree(world.root) == tree(straight.root)
    assert world.store.staged().is_empty()
    assert tree(world.root, "staging") == {}
    check_contents(world)


def test_a_publish_that_loses_its_lease_after_the_commit_deletes_no_tar(world, monkeypatch):
    world.add(*ids(4))
    world.snapshot()
    world.stage()
    before, replace = tree(world.root, "staging"), FeatureStore.replace_staged

    def lost(self):
        raise LeaseLost("taken over")

    def replace_and_lose(self, frame):
        replace(self, frame)
        patch.setattr(FeatureStore, "check_lease", lost)

    with monkeypatch.context() as patch, pytest.raises(LeaseLost):
        patch.setattr(FeatureStore, "replace_staged", replace_and_lose)
        world.publish()
    assert tree(world.root, "staging") == before
    check_contents(world)


def test_a_lost_or_doubled_result_is_noticed(world):
    world.add(*ids(8))
    world.snapshot()
    world.stage()
    for wrong in (
        lambda function, tasks: map(function, tasks[1:]),
        lambda function, tasks: map(function, [*tasks, tasks[0]]),
    ):
        with pytest.raises(RuntimeError, match="row conservation"):
            world.publish(run_tasks=wrong)
    assert world.store.samples().is_empty()
    world.publish()
    check_contents(world)


def test_two_publishers_cannot_both_commit(world):
    world.add(*ids(8))
    world.snapshot()
    world.stage()

    def with_a_rival(function, tasks):
        rows = [function(task) for task in tasks]
        World.publish(world)
        return rows

    with pytest.raises(JobError, match="another job"):
        world.publish(run_tasks=with_a_rival)
    check_contents(world)


def test_a_finished_store_reads_its_samples_twice_and_leftovers_still_go(world, monkeypatch):
    """Once to plan, once to find shards that nothing refers to."""
    world.add(*ids(4))
    world.run()
    leftover = world.root / "features" / "clip-00000000" / "gen-000009" / "train-000000.tar"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"of a killed publish")
    scanned, scan = [], FeatureStore._scan
    monkeypatch.setattr(FeatureStore, "_scan", lambda self, *names: scanned.append(names[0]) or scan(self, *names))
    assert world.publish().published == 0
    assert scanned.count("samples") == 2 and scanned.count("videos") == 1
    assert not leftover.exists()


def test_a_label_wins_and_a_new_one_is_the_same_encoder(world):
    plain = BOTH["clip"]
    assert plain.extractor == "clip tiny-0"
    named = dataclasses.replace(plain, label="ViT-B-32, laion2b")
    assert named.extractor == "ViT-B-32, laion2b"
    world.add(*ids(4))
    world.run()
    world.add("late")
    assert world.run({**BOTH, "clip": named}).published == 1
    manifest = open_manifest(str(world.root))
    row = next(row for row in manifest.rows("clip").to_dicts() if row["video_id"] == "late")
    assert read_sample(str(world.root), row)[1].extractor == "ViT-B-32, laion2b"


def test_features_of_another_dimension_stop_the_publish(world):
    world.add("a")
    world.snapshot()
    world.stage({"clip": CLIP})
    with pytest.raises(ValueError, match="dimension 8, not 9"):
        world.publish({"clip": dataclasses.replace(CLIP, dim=9)})


def test_a_foreign_encoder_with_half_staged_rows_keeps_them(world):
    world.add(*ids(3))
    world.snapshot()
    world.stage({"c3d": C3D}, skip=[("video000", 0)])
    world.stage({"clip": CLIP})
    world.publish({"clip": CLIP})
    assert set(world.store.staged()["encoder"]) == {"c3d"}
    world.stage({"c3d": C3D})
    world.publish()
    check_contents(world)


@pytest.mark.parametrize(
    ("dead", "named"),
    [
        (lambda features: np.full_like(features, 0.5), "constant"),
        (lambda features: np.arange(features.size, dtype=np.float16).reshape(features.shape), "equal to a row"),
    ],
    ids=["one value everywhere", "the same rows for every video"],
)
def test_features_of_a_dead_encoder_are_not_published(world, monkeypatch, dead, named):
    planted = world_module.planted_features
    monkeypatch.setattr(world_module, "planted_features", lambda *arguments: dead(planted(*arguments)))
    world.add(*ids(20))
    world.snapshot()
    world.stage()
    with pytest.raises(OddRowsError, match=named):
        world.publish(config=PublishConfig(splits=world_module.CONFIG.splits))
    assert world.store.samples().is_empty()


def test_odd_rows_stand_in_the_manifest_and_the_summary(world, monkeypatch):
    planted = world_module.planted_features
    monkeypatch.setattr(
        world_module,
        "planted_features",
        lambda *arguments: np.concatenate([planted(*arguments)[:1], planted(*arguments)]),
    )
    world.add(*ids(3))
    world.snapshot()
    world.stage()
    assert world.publish().num_odd == {"num_constant": 0, "num_repeated": 6, "num_shared": 0}
    manifests = [json.loads(path.read_text()) for path in world.root.glob("features/*/gen-000001/manifest.json")]
    assert sum(s["num_repeated"] for m in manifests for s in m["shards"].values()) == 6


def test_rows_that_two_spans_of_one_file_share_are_not_odd(world):
    world.add("a", "b", split="train")
    for name in "ab":
        world.videos[name] = (f"file+{name}", world.videos[name][1])
    summary = world.run()
    assert summary.published == 2 and summary.num_odd["num_shared"] == 0


def test_too_small_shards_are_refused():
    with pytest.raises(UserError, match="target_shard_bytes"):
        PublishConfig(target_shard_bytes=10)


def test_the_same_life_on_an_object_store(monkeypatch):
    s3fs.S3FileSystem.clear_instance_cache()
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ALLOW_HTTP": "true"}
        names |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem().mkdir("bucket")
        world = World("s3://bucket/store")
        world.add(*ids(4))
        world.run()
        world.add("video001", content="v2")
        assert world.run().published == 1
        check_contents(world)
        again = world.run()
        assert again.published == 0
        assert storage.list_files("s3://bucket/store/staging") == {}
        with pytest.raises(JobError, match="another job"):
            world.store.commit_samples(world.store.samples().head(1), again.version - 1)
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_wrong_bit_in_staging_keeps_its_video_back_until_it_is_made_again(world, caplog):
    world.add(*ids(4))
    world.snapshot()
    world.stage()
    row = world.store.staged().row(3, named=True)
    tar = world.root / row["tar"]
    data = bytearray(tar.read_bytes())
    data[row["offset"] + 700] ^= 1
    tar.write_bytes(data)
    summary = world.publish()
    assert (summary.published, summary.incomplete) == (3, 1)
    assert f"1 videos ({row['video_id']}) are not published now" in caplog.text
    assert world.stage() == 1
    assert world.publish().published == 1
    check_contents(world)
