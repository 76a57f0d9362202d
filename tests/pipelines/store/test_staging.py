import dataclasses
import errno

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from hvlm.errors import UserError
from infra import storage
from pipelines.store.lease import LeaseLost
from pipelines.store.staging import (
    DamagedSegmentError,
    StagingItem,
    discard_staged,
    read_segment,
    sweep_copies,
    sweep_orphans,
    write_staging_tar,
)
from tests.pipelines.store.world import World, ids, tree

ITEM = StagingItem(
    video_id="a b",
    key="x--a_20b",
    content_hash="1",
    encoder="clip",
    fingerprint="f",
    layout="10s",
    segment_index=2,
    num_segments=3,
    row_start=4,
    num_rows=3,
    duration_s=30.0,
    fps=1.0,
    stride_s=1.0,
    clip_s=1.0,
    offset_s=0.0,
    features=np.arange(6, dtype=np.float16).reshape(3, 2),
    times_s=np.array([4.0, 5.0, 6.0]),
)
EMPTY = dataclasses.replace(ITEM, num_rows=0, features=np.zeros((0, 2), np.float16), times_s=np.zeros(0))


def test_rows_lead_back_to_the_features(tmp_path):
    rows = write_staging_tar(str(tmp_path), "run", iter([ITEM, EMPTY]))
    assert len(tree(tmp_path, "staging/run")) == 1
    assert {row["tar"] for row in rows} == {next(iter(tree(tmp_path, "staging")))}
    features, times_s = read_segment(str(tmp_path), rows[0])
    assert (features == ITEM.features).all() and (times_s == ITEM.times_s).all()
    assert read_segment(str(tmp_path), rows[1])[0].shape == (0, 2)
    assert (rows[0]["num_rows"], rows[0]["dim"], rows[0]["row_start"], rows[0]["segment_index"]) == (3, 2, 4, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"features": ITEM.features.astype(np.float32)},
        {"features": ITEM.features[0]},
        {"features": ITEM.features[:2]},
        {"times_s": ITEM.times_s[:2]},
        {"features": ITEM.features + np.float16(np.inf)},
        {"key": "other"},
    ],
    ids=["dtype", "1-D", "rows", "times", "infinity", "key"],
)
def test_wrong_items_are_refused_and_leave_no_file(tmp_path, change):
    with pytest.raises(ValueError, match="'a b', segment 2, encoder 'clip'"):
        write_staging_tar(str(tmp_path), "run", [ITEM, dataclasses.replace(ITEM, **change)])
    assert tree(tmp_path, "staging") == {}


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def items():
        yield ITEM
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="no space left"):
        write_staging_tar(str(tmp_path), "run", items())
    assert tree(tmp_path, "staging") == {}


def test_a_catalog_row_that_lies_is_noticed(tmp_path):
    row = write_staging_tar(str(tmp_path), "run", [ITEM])[0]
    with pytest.raises(ValueError, match="the catalog says"):
        read_segment(str(tmp_path), row | {"num_rows": 4})


@pytest.mark.parametrize("place", [0, 700, 2047], ids=["header", "features", "padding"])
def test_a_wrong_bit_or_a_lost_end_of_a_staged_range_is_noticed(tmp_path, place):
    whole, row = write_staging_tar(str(tmp_path), "run", [EMPTY, ITEM])
    tar = tmp_path / row["tar"]
    data = bytearray(tar.read_bytes())
    data[row["offset"] + place] ^= 1
    tar.write_bytes(data)
    assert read_segment(str(tmp_path), whole)[0].shape == (0, 2)
    with pytest.raises(DamagedSegmentError, match="other bytes than were written"):
        read_segment(str(tmp_path), row)
    tar.write_bytes(data[: row["offset"] + 100])
    with pytest.raises(DamagedSegmentError, match="cut short"):
        read_segment(str(tmp_path), row)


def test_a_store_that_knew_no_sha256_of_staged_ranges_goes_on(tmp_path):
    world = World(tmp_path)
    world.add(*ids(3))
    world.snapshot()
    world.stage(skip=[("video001", 2)])
    old = world.store.staged().drop("sha256")
    write_deltalake(world.store.table_uri("staged"), old, mode="overwrite", schema_mode="overwrite")
    assert world.store.staged()["sha256"].null_count() == old.height
    assert world.stage() == 2
    assert world.store.staged()["sha256"].null_count() == old.height
    assert world.publish().published == 3


def test_the_sweep_takes_what_nothing_names_and_nothing_else(tmp_path):
    world = World(tmp_path)
    world.add(*ids(4))
    world.run()
    world.add("late")
    world.snapshot()
    world.stage(skip=[("late", 2)])
    kept = tree(tmp_path, "staging") | tree(tmp_path)
    assert kept and sweep_orphans(world.store) == []
    orphan = write_staging_tar(str(tmp_path), "killed", [ITEM])[0]["tar"]
    shard = next(path for path in tree(tmp_path) if path.endswith(".tar"))
    extra = shard.replace(".tar", "9.tar")
    half = f"{shard}.tmp-12"
    alone = "features/clip-00000000/gen-000009/manifest.json"
    for path in (extra, half, alone):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    assert sorted(sweep_orphans(world.store)) == sorted([orphan, extra, half, alone])
    assert tree(tmp_path, "staging") | tree(tmp_path) == kept


def test_a_sweep_that_has_lost_its_lease_deletes_nothing(tmp_path, monkeypatch):
    world = World(tmp_path)
    world.add(*ids(2))
    world.run()
    orphan = tmp_path / write_staging_tar(str(tmp_path), "killed", [ITEM])[0]["tar"]

    def lost():
        raise LeaseLost("taken over")

    monkeypatch.setattr(world.store, "check_lease", lost)
    with pytest.raises(LeaseLost):
        sweep_orphans(world.store)
    assert orphan.exists()


def test_copies_of_contents_that_no_video_has_are_swept(tmp_path):
    world = World(tmp_path)
    world.add(*ids(2))
    world.snapshot()
    stays, goes = world.store.videos()["content_hash"]
    world.remove(ids(2)[1])
    world.snapshot()
    names = [f"aa/{stays}-256-0.copy", f"aa/{stays}-256-0.copy.tmp-1", f"bb/{goes}-256-0.copy", "other"]
    for name in names:
        storage.atomic_write(f"{tmp_path}/frames/{name}", b"x")
    assert sweep_copies(world.store) == [f"frames/{name}" for name in names[1:3]]
    assert sweep_copies(world.store) == [] and list(storage.list_files(f"{tmp_path}/frames")) == [names[0], "other"]


def test_a_tar_that_is_only_listed_late_keeps_its_rows(tmp_path, monkeypatch):
    world = World(tmp_path)
    world.add(*ids(4))
    world.snapshot()
    world.stage(per_tar=6)
    wanted, listed = world.store.staged(), storage.list_files
    late = lambda uri: dict(list(listed(uri).items())[1:]) if uri.endswith("staging") else listed(uri)  # noqa: E731
    monkeypatch.setattr(storage, "list_files", late)
    assert len(late(f"{tmp_path}/staging")) == 3
    assert sweep_orphans(world.store) == [] and world.store.staged().equals(wanted)


def test_staged_rows_whose_tar_is_gone_are_dropped_and_made_again(tmp_path, caplog):
    world = World(tmp_path)
    world.add(*ids(4))
    world.snapshot()
    world.stage(per_tar=6)  # 24 segments: whichever tar goes, 6 are lost
    wanted, version = world.store.staged().height, world.store._table("staged").version()
    gone = min(tree(tmp_path, "staging"))
    (tmp_path / gone).unlink()
    assert sweep_orphans(world.store) == []
    assert f"1 staged tars are gone from {tmp_path} (e.g. {gone}): their 6 segments are made again" in caplog.text
    assert world.store.staged().height == wanted - 6
    assert world.store._table("staged").version() == version + 1
    assert world.stage() == 6
    assert world.publish().published == 4


def test_discarding_leaves_the_rows_of_others_and_their_tars(tmp_path):
    world = World(tmp_path)
    world.add(*ids(3))
    world.snapshot()
    world.stage(per_tar=4)  # tars with both encoders in them
    before = world.store.staged()
    with pytest.raises(UserError, match=r"one with staged features: c3d-.*, clip-"):
        discard_staged(world.store, "clip-00000000")
    gone = discard_staged(world.store, "clip")
    assert (gone.height, set(gone["encoder"])) == (9, {"clip"})
    kept = world.store.staged()
    assert kept.sort("tar", "offset").equals(before.filter(pl.col("encoder") == "c3d").sort("tar", "offset"))
    assert set(tree(tmp_path, "staging")) == set(kept["tar"]) < set(before["tar"])
