import dataclasses
import hashlib
import json
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest

from hvlm.data.samples import array_to_npy, decode_sample
from hvlm.data.tar import TarWriter
from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(10))
    world.run()
    return world


def live_row(world, position=3):
    return world.store.samples().filter(pl.col("state") == "live").sort("shard", "offset").row(position, named=True)


def problems(world):
    return verify_store(str(world.root)).problems


def flip(world, row, position):
    path = world.root / row["shard"]
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_whole_store(world):
    report = verify_store(str(world.root))
    assert (report.problems, report.orphans, report.num_samples, report.num_videos) == ((), (), 20, 10)
    shards = list((world.root / "features").rglob("*.tar"))
    assert (report.num_shards, report.num_bytes) == (len(shards), sum(path.stat().st_size for path in shards))


@pytest.mark.parametrize("where", ["header", "features", "json", "last"])
def test_one_flipped_bit_names_shard_sample_and_video(world, where):
    row = live_row(world)
    data = (world.root / row["shard"]).read_bytes()
    positions = {
        "header": row["offset"],
        "features": row["offset"] + 700,
        "json": data.index(b'"fingerprint"', row["offset"]),
        "last": row["offset"] + row["size"] - 1,
    }
    flip(world, row, positions[where])
    found = problems(world)
    assert {problem.shard for problem in found} == {row["shard"]}
    assert [(problem.key, problem.video_id) for problem in found if problem.key] == [(row["key"], row["video_id"])]
    assert row["video_id"] in str(found[0]) and row["shard"] in str(found[0])


def test_a_flipped_bit_behind_the_samples_names_the_shard(world):
    row = live_row(world)
    flip(world, row, row["shard_bytes"] - 1)
    assert [(problem.shard, problem.key) for problem in problems(world)] == [(row["shard"], "")]


def test_a_missing_and_a_truncated_shard(world):
    row = live_row(world)
    path = world.root / row["shard"]
    data = path.read_bytes()
    path.write_bytes(data[:-1024])
    assert any("bytes, the catalog says" in problem.message for problem in problems(world))
    path.unlink()
    assert ["missing" in problem.message for problem in problems(world)] == [True]


def test_a_generation_that_nothing_lives_in_is_read_as_long_as_it_is_stored(world):
    for video_id in ids(10):
        world.add(video_id, content="v2")
    world.run()
    report = verify_store(str(world.root))
    assert (report.num_samples, report.num_dead, report.num_lost, report.num_videos) == (40, 20, 0, 10)
    row = live_row(world, 0)
    flip(world, row, row["offset"] + 700)
    assert [problem.message for problem in problems(world) if "not live any more" in problem.message] != []
    (world.root / row["shard"]).unlink()
    assert [problem.shard for problem in problems(world)] == [row["shard"]]
    assert "0 of them live" in problems(world)[0].message
    newest = world.store.samples_version()
    assert verify_store(str(world.root), version=1).problems != () != verify_store(str(world.root), newest).problems


def test_of_an_older_version_only_the_shards_with_live_samples_are_read(world):
    for video_id in ids(10):
        world.add(video_id, content="v2")
    world.run()
    pinned = world.store.samples_version()
    for path in (world.root / "features").rglob("gen-000001/*.tar"):
        path.unlink()
    world.add("another")
    world.run()
    assert verify_store(str(world.root), version=pinned).problems == () != problems(world)


def test_a_dead_sample_that_is_marked_as_damaged_is_no_problem_and_the_others_of_its_shard_are_checked(world):
    row = live_row(world)
    shard = world.store.samples().filter(pl.col("shard") == row["shard"]).sort("offset").to_dicts()
    assert len(shard) >= 3
    for each in shard[:2]:
        world.add(each["video_id"], content="v2")
    world.run()
    flip(world, shard[0], shard[0]["offset"] + 700)
    assert len(problems(world)) == 2
    mark = pl.DataFrame([shard[0] | {"state": "damaged", "commit": 9}], schema=world.store.samples().schema)
    world.store.commit_samples(mark, world.store.samples_version())
    report = verify_store(str(world.root))
    assert (report.problems, report.num_lost, report.num_dead) == ((), 1, 3)
    flip(world, shard[1], shard[1]["offset"] + 700)
    flip(world, shard[2], shard[2]["offset"] + 700)
    assert [problem.key for problem in problems(world)] == [shard[1]["key"], shard[2]["key"]]


def test_a_shard_outside_the_catalog_is_an_orphan_not_a_problem(world):
    orphan = live_row(world)["shard"].replace(".tar", "9.tar")
    (world.root / orphan).write_bytes(b"x")
    report = verify_store(str(world.root))
    assert (report.problems, report.orphans) == ((), (orphan,))


def forge(world, change):
    """Write a sample anew with a change, and make every hash in the catalog agree: only the content is wrong."""
    row = live_row(world, 0)
    path = world.root / row["shard"]
    rows = world.store.samples().filter(pl.col("shard") == row["shard"]).sort("offset").to_dicts()
    data, forged = path.read_bytes(), []
    with path.open("wb") as file:
        writer = TarWriter(file)
        for each in rows:
            features, meta = decode_sample(data[each["offset"] : each["offset"] + each["size"]])
            values = json.loads(json.dumps(dataclasses.asdict(meta)))
            values["T"], values["D"] = values.pop("num_rows"), values.pop("dim")
            if each["key"] == row["key"]:
                features, values = change(features, values)
            start, size = writer.add(f"{each['key']}.features.npy", array_to_npy(features))
            size += writer.add(f"{each['key']}.json", json.dumps(values).encode())[1]
            forged.append(each | {"offset": start, "size": size})
        writer.finish()
    data = path.read_bytes()
    for each in forged:
        part = data[each["offset"] : each["offset"] + each["size"]]
        each |= {"sample_sha256": hashlib.sha256(part).hexdigest(), "shard_bytes": len(data)}
        each |= {"shard_sha256": hashlib.sha256(data).hexdigest()}
    others = world.store.samples().filter(pl.col("shard") != row["shard"])
    frame = pl.concat([others, pl.DataFrame(forged, schema=others.schema)])
    return row, frame


def with_nan(features, values):
    features[0, 0] = np.nan
    return features, values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda features, values: (features, values), None),
        (with_nan, "NaN"),
        (lambda features, values: (features[:-1], values), "the catalog says float16"),
        (lambda features, values: (features.astype(np.float32), values), "float32"),
        (lambda features, values: (features, values | {"fingerprint": "0" * 64}), "fingerprint"),
        (lambda features, values: (features, values | {"video_id": "other"}), "video_id"),
        (lambda features, values: (features, values | {"split": "test"}), "split"),
        (lambda features, values: (features, values | {"timestamps_s": []}), "time stamps"),
        (lambda features, values: (features, values | {"surprise": 1}), "not a sample"),
    ],
    ids=["nothing", "nan", "shape", "dtype", "fingerprint", "video", "split", "times", "json"],
)
def test_wrong_content_with_right_hashes_is_found(world, monkeypatch, change, words):
    row, frame = forge(world, change)
    monkeypatch.setattr(FeatureStore, "samples", lambda self, version=None: frame)
    found = problems(world)
    if words is None:
        assert found == ()
    else:
        assert [(problem.key, words in problem.message) for problem in found] == [(row["key"], True)]


@pytest.mark.parametrize("error", [TimeoutError("timed out"), PermissionError("no"), OSError(5, "Input/output error")])
def test_a_storage_that_fails_is_no_damage(world, monkeypatch, error):
    local_copy = storage.local_copy

    @contextmanager
    def failing(uri):
        if "c3d" in uri:
            raise error
        with local_copy(uri) as path:
            yield path

    monkeypatch.setattr(storage, "local_copy", failing)
    with pytest.raises(UserError, match=rf"c3d.*{type(error).__name__}.*a storage that answers"):
        problems(world)


def test_a_live_sample_without_its_metadata_is_a_problem_of_the_catalog(world, monkeypatch):
    metadata = FeatureStore.metadata
    known = pl.col("video_id") != "video003"
    monkeypatch.setattr(FeatureStore, "metadata", lambda self, *columns: metadata(self, *columns).filter(known))
    assert [(p.video_id, p.in_catalog, "jobs.extract" in p.message) for p in problems(world)] == [
        ("video003", True, True)
    ]


def test_a_video_in_two_splits_or_live_twice_is_found(world, monkeypatch):
    frame = world.store.samples()
    row = live_row(world, 0)
    mine = (pl.col("key") == row["key"]) & (pl.col("encoder") == row["encoder"])
    moved = frame.with_columns(split=pl.when(mine).then(pl.lit("elsewhere")).otherwise(pl.col("split")))
    doubled = pl.concat([frame, frame.filter(mine)])
    for wrong, words in ((moved, "in the splits"), (doubled, "live 2 times")):
        monkeypatch.setattr(
            "pipelines.store.catalog.FeatureStore.samples", lambda self, version=None, wrong=wrong: wrong
        )
        found = [problem for problem in problems(world) if words in problem.message]
        assert [(problem.video_id, problem.in_catalog) for problem in found] == [(row["video_id"], True)]
