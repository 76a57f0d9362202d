import contextlib
import dataclasses
import hashlib
import json
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest
import webdataset

from hvlm.data.tar import TarWriter
from hvlm.errors import JobError
from pipelines.store.catalog import FeatureStore
from pipelines.store.generation import plan_generation, readiness_of, shard_tasks
from pipelines.store.lease import Holder, LeaseLost
from pipelines.store.shards import DamagedShardError, cut_segments, make_sample, set_manifest, write_shard
from pipelines.store.staging import StagingItem, write_staging_tar
from tests.pipelines.store.test_staging import ITEM
from tests.pipelines.store.world import BOTH, CONFIG, World, ids, planted_features, tree

FINGERPRINTS = {name: column.fingerprint for name, column in BOTH.items()}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(6), captions=[{"text": "all", "segment": None}], subset="training")
    world.snapshot()
    world.stage()
    return world


def tasks_of(world):
    frames = world.store.frames(full=True)
    readiness = readiness_of(frames, FINGERPRINTS, CONFIG.splits)
    plan = plan_generation(frames, readiness, FINGERPRINTS, CONFIG.splits, 10**9)
    return shard_tasks(plan, frames, BOTH, str(world.root), world.store.lease_token())


def test_rows_say_what_was_written_and_a_second_writing_gives_the_same_bytes(world):
    task = tasks_of(world)[0]
    rows = write_shard(task)
    data = (world.root / task.shard).read_bytes()
    assert {(row["shard_sha256"], row["shard_bytes"]) for row in rows} == {
        (hashlib.sha256(data).hexdigest(), len(data))
    }
    for row in rows:
        part = data[row["offset"] : row["offset"] + row["size"]]
        assert hashlib.sha256(part).hexdigest() == row["sample_sha256"]
    assert write_shard(task) == rows
    assert (world.root / task.shard).read_bytes() == data


def test_webdataset_reads_the_shards_of_two_encoders_side_by_side(world):
    tasks = tasks_of(world)
    for task in tasks:
        write_shard(task)
    contents = dict(world.store.videos().select("video_id", "content_hash").iter_rows())
    keys = {}
    for task in tasks:
        samples = webdataset.WebDataset(str(world.root / task.shard), shardshuffle=False, empty_check=False).decode()
        for sample in samples:
            meta = sample["json"]
            features = planted_features(contents[meta["video_id"]], task.encoder, BOTH[task.encoder])
            assert (sample["features.npy"] == features).all()
            assert meta["captions"] == [{"text": "all", "segment": [0.0, 30.0]}]
            assert (meta["subset"], meta["encoder"], meta["T"]) == ("training", task.encoder, len(features))
            keys.setdefault(task.encoder, []).append(sample["__key__"])
    assert len(keys["clip"]) == 6 and keys["clip"] == keys["c3d"]


def test_summaries_of_parts_stand_in_the_sample_and_are_cut_to_the_video(world):
    summaries = [{"text": "the end", "segment": [9.0, 99.0], "pass": "one"}, {"text": "all", "segment": None}]
    world.add("video001", summaries=[*summaries, {"text": "late", "segment": [31.0, 35.0]}], subset="training")
    world.snapshot()
    task = tasks_of(world)[0]
    metas = {item.video_id: make_sample(task, item)[1] for item in task.items}
    assert metas["video001"].summaries == [
        {"text": "the end", "segment": [9.0, 30.0], "pass": "one"},
        {"text": "all", "segment": [0.0, 30.0]},
    ]
    assert metas["video002"].summaries == []
    assert [line.rpartition(" ")[2] for line in cut_segments(world.store)] == ["cut", "out"]


def test_annotations_beyond_the_end_of_the_file_are_said(world):
    segments = [[1.0, 2.0], [20.0, 40.0], [31.0, 35.0]]
    world.add("odd", annotations=[{"label": "l", "segment": segment} for segment in segments])
    world.add("gone", captions=[{"text": "t", "segment": [31.0, 35.0]}])
    world.snapshot()
    world.remove("gone")
    world.snapshot()
    assert cut_segments(world.store) == [
        "odd: segment [20, 40] of a video of 30.00 s: cut",
        "odd: segment [31, 35] of a video of 30.00 s: left out",
    ]


def test_segments_that_do_not_join_are_refused(world):
    task = tasks_of(world)[0]
    item = task.items[0]
    for segments in ((item.segments[0], item.segments[2]), (item.segments[1],), item.segments[::-1]):
        broken = dataclasses.replace(task, items=(dataclasses.replace(item, segments=segments),))
        with pytest.raises(ValueError, match="expected segment"):
            write_shard(broken)
    assert not (world.root / task.shard).exists()


def test_a_source_of_another_fingerprint_is_refused(world):
    task = tasks_of(world)[0]
    row = write_shard(task)[0]
    published = (row["shard"], row["offset"], row["size"], row["sample_sha256"])
    item = dataclasses.replace(task.items[0], segments=(), published=published)
    with pytest.raises(ValueError, match="fingerprint"):
        write_shard(dataclasses.replace(task, fingerprint="0" * 64, items=(item,)))


@pytest.mark.parametrize("damage", ["lost", "short", "flipped"])
def test_copying_from_a_damaged_shard_names_the_shard_and_the_video(world, damage):
    world.publish()
    world.add("video003", summary="new words")
    world.snapshot()
    task = tasks_of(world)[0]
    shard, offset, *_ = task.items[0].published
    path, data = world.root / shard, (world.root / shard).read_bytes()
    spoilt = {"short": data[: offset + 10], "flipped": data[: offset + 700] + b"\xff" + data[offset + 701 :]}
    path.unlink()
    if damage in spoilt:
        path.write_bytes(spoilt[damage])
    with pytest.raises(DamagedShardError, match=rf"{shard} .*'video003'.* jobs\.verify") as caught:
        world.publish()
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), JobError)  # it travels back from a Ray task
    path.write_bytes(data)
    assert world.publish().published == 1


def test_one_sample_is_in_memory_at_a_time(tmp_path):
    num_rows, dim, count = 2000, 500, 12

    def items():
        for index in range(count):
            features = np.full((num_rows, dim), index, np.float16)
            yield dataclasses.replace(
                ITEM,
                video_id=f"v{index}",
                key=f"v{index}",
                segment_index=0,
                num_segments=1,
                row_start=0,
                num_rows=num_rows,
                features=features,
                times_s=np.zeros(num_rows),
            )

    assert StagingItem is type(ITEM)
    sample_bytes = num_rows * dim * 2
    tracemalloc.start()
    rows = write_staging_tar(str(tmp_path), "run", items())
    staged_peak = tracemalloc.get_traced_memory()[1]
    world = World(tmp_path / "store")
    world.add("v")
    world.snapshot()
    world.stage()
    task = tasks_of(world)[0]
    metadata = task.items[0]
    many = tuple(
        dataclasses.replace(metadata, video_id=row["video_id"], key=row["key"], segments=(row | {"segment_index": 0},))
        for row in rows
    )
    tracemalloc.reset_peak()
    write_shard(dataclasses.replace(task, store_uri=str(tmp_path), dim=dim, items=many))
    shard_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / task.shard).stat().st_size > count * sample_bytes
    assert staged_peak < 5 * sample_bytes
    assert shard_peak < 7 * sample_bytes


def test_the_manifest_of_a_set_describes_its_files(world):
    task = tasks_of(world)[0]
    rows = write_shard(task)
    found = json.loads(set_manifest(rows))
    name = task.shard.rpartition("/")[2]
    with tarfile.open(world.root / task.shard) as archive:
        members = [name.removesuffix(".json") for name in archive.getnames() if name.endswith(".json")]
    assert (found["encoder"], found["gen"], found["fingerprint"]) == (task.encoder, 1, task.fingerprint)
    assert [sample["key"] for sample in found["shards"][name]["samples"]] == members
    assert found["shards"][name]["samples"][0]["span_s"] == [0.0, 30.0]


def test_the_late_shard_of_a_job_that_lost_the_store_replaces_nothing(world, monkeypatch):
    finish, first, second, written = TarWriter.finish, world.store, FeatureStore.open(str(world.root)), []
    monkeypatch.setattr(Holder, "is_gone", lambda self, now_s: True)  # whoever holds it, is dead
    with contextlib.ExitStack() as stack:
        stack.enter_context(first.writing("the first job"))
        late = tasks_of(world)[0]

        def taken_over(writer):
            """The first job's worker has read and written everything; its shard only lacks its name."""
            monkeypatch.setattr(TarWriter, "finish", finish)
            stack.enter_context(second.writing("the second job"))
            world.store = second
            world.add(*ids(6), summary="changed")
            world.snapshot()
            written.extend(write_shard(tasks_of(world)[0]))
            return finish(writer)

        monkeypatch.setattr(TarWriter, "finish", taken_over)
        with pytest.raises(LeaseLost, match="discarded"):
            write_shard(late)
        assert tree(world.root) == {late.shard: written[0]["shard_sha256"]}
    with pytest.raises(LeaseLost, match="discarded"):
        write_shard(late)  # nobody holds it any more
