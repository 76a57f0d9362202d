import hashlib
import threading
from itertools import pairwise

import pytest

from hvlm.errors import UserError
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.upkeep.compact import CompactConfig, compact
from tests.pipelines.store.world import BOTH, C3D, CLIP, World, column, ids


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(8))
    world.run()
    return world


def test_one_row_per_video_with_both_encoders_beside_each_other(world):
    manifest = open_manifest(str(world.root))
    assert list(manifest.encoders) == ["c3d", "clip"]
    assert sorted(manifest.frame["video_id"]) == ids(8)
    for row in manifest.frame.to_dicts():
        for name, dim in (("clip", 8), ("c3d", 16)):
            features, meta = read_sample(str(world.root), row, name)
            assert features.shape == (row[f"{name}.num_rows"], dim)
            assert (meta.key, meta.encoder, meta.duration_s) == (row["key"], name, row["duration_s"])
    assert manifest.rows("clip")["key"].to_list() == manifest.frame["key"].to_list()


def test_a_pinned_version_gives_the_same_manifest_whatever_is_written_later(world):
    pinned = open_manifest(str(world.root))
    world.add("late")
    world.add("video001", content="v2")
    world.remove("video002")
    world.run()
    again, newest = open_manifest(str(world.root), version=pinned.version), open_manifest(str(world.root))
    assert again.frame.equals(pinned.frame) and again.manifest_hash == pinned.manifest_hash
    assert newest.manifest_hash != pinned.manifest_hash
    assert set(newest.frame["video_id"]) == set(world.videos)
    for row in again.rows("clip").to_dicts():
        read_sample(str(world.root), row)


def test_a_reader_beside_a_writer_only_ever_sees_whole_publishes(world):
    """New videos, a replaced one and a deleted one go in while manifests are opened as fast as possible."""

    def whole():
        return {v: hashlib.sha256(content.encode()).hexdigest() for v, (content, _) in world.videos.items()}

    def write():
        for turn in range(6):
            world.add(*(f"new{turn}-{index}" for index in range(5)))
            world.add("video001", content=f"turn{turn}")
            if turn == 3:
                world.remove("video005")
            states.append(whole())
            world.run()

    states, seen = [whole()], []
    writer = threading.Thread(target=write)
    writer.start()
    alive = True
    while alive:
        alive = writer.is_alive()  # asked before reading: the last reading sees the last publish
        frame = open_manifest(str(world.root)).frame
        for row in frame.to_dicts():
            assert all(read_sample(str(world.root), row, name)[1].video_id == row["video_id"] for name in BOTH)
        seen.append(dict(frame.select("video_id", "content_hash").iter_rows()))
        assert seen[-1] in states
    assert seen[-1] == states[-1] and len(states) == 7
    assert sum(one != other for one, other in pairwise(seen)) >= 3  # it did read while the writer was at work


def test_encoders_by_name_and_by_fingerprint(world):
    new = column("clip", 8, version=1)
    world.add("late")
    world.run({"clip": new})
    assert open_manifest(str(world.root)).encoders == {"clip": new.fingerprint}
    old = open_manifest(str(world.root), [f"clip-{CLIP.fingerprint[:8]}", "c3d"])
    assert old.encoders == {"clip": CLIP.fingerprint, "c3d": C3D.fingerprint}
    assert (sorted(old.frame["video_id"]), old.num_incomplete) == (ids(8), 1)
    mixed = open_manifest(str(world.root), ["c3d", "clip"])
    assert list(mixed.encoders) == ["c3d", "clip"] and mixed.encoders["clip"] == new.fingerprint


def test_the_hash_is_that_of_the_content_not_of_the_version(world, tmp_path):
    twin = World(tmp_path / "twin")
    twin.add(*ids(8))
    twin.snapshot()
    twin.publish()
    twin.stage(order=-1)
    twin.publish()
    assert open_manifest(str(twin.root)).manifest_hash == open_manifest(str(world.root)).manifest_hash


def test_unknown_encoders_and_versions_are_user_errors(world):
    with pytest.raises(UserError, match=f"clip-{CLIP.fingerprint[:8]}"):
        open_manifest(str(world.root), ["resnet"])
    with pytest.raises(UserError, match="version"):
        open_manifest(str(world.root), version=99)


def test_an_empty_store_has_an_empty_manifest(tmp_path):
    world = World(tmp_path / "empty")
    manifest = open_manifest(str(world.root))
    assert manifest.frame.is_empty() and manifest.encoders == {} and manifest.num_incomplete == 0


def test_the_encoder_is_described(world):
    found = open_manifest(str(world.root)).encoder_column("clip")
    assert (found.identity, found.fingerprint, found.dim) == (BOTH["clip"].identity, CLIP.fingerprint, 8)


def test_a_row_that_points_at_another_sample_is_noticed(world):
    one, other = open_manifest(str(world.root)).rows("clip").to_dicts()[:2]
    with pytest.raises(UserError, match=f"the sample '{other['key']}' at .*; expected the sample '{one['key']}'"):
        read_sample(str(world.root), other | {"key": one["key"]})


@pytest.mark.parametrize("damage", ["flipped", "short", "lost"])
def test_a_damaged_sample_is_never_handed_out(world, damage):
    row = open_manifest(str(world.root)).frame.row(3, named=True)
    path = world.root / row["clip.shard"]
    data = bytearray(path.read_bytes())
    end = row["clip.offset"] + row["clip.size"]
    features = data.index(b"NUMPY", row["clip.offset"]) + 200  # a number: the sample still decodes
    data[features] ^= 1
    path.write_bytes(data if damage == "flipped" else data[: end - 100])
    if damage == "lost":
        path.unlink()
    words = {"flipped": "sha256", "short": "bytes from offset", "lost": "no such file"}
    with pytest.raises(UserError, match=f"{words[damage]}.*expected the sample '{row['key']}'.*repair=true"):
        read_sample(str(world.root), row, "clip")
    assert read_sample(str(world.root), row, "c3d")[1].key == row["key"]


def test_a_compaction_under_a_reader_says_so(world):
    row = open_manifest(str(world.root)).rows("clip").row(0, named=True)
    world.remove(ids(8)[0])
    world.run()
    compact(CompactConfig(store_uri=str(world.root), keep_versions_days=0))
    with pytest.raises(UserError, match=r"jobs\.compact has deleted generation 1 .*keep_versions_days"):
        read_sample(str(world.root), row)
