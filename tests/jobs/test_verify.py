import os
from pathlib import Path

import polars as pl
import pytest

from hvlm.errors import UserError
from infra import storage
from infra.config_io import load_config
from jobs import extract
from jobs.entry import guarded
from jobs.verify import VerifyConfig, run
from pipelines.store.catalog import FeatureStore
from pipelines.store.lease import StoreIsHeld
from tests.jobs.test_extract import config
from tests.pipelines.extraction.conftest import write_video
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(6))
    world.run()
    return world


def test_a_whole_store_exits_with_0(world, capsys):
    assert run(VerifyConfig(store_uri=str(world.root))) == 0
    out = capsys.readouterr().out
    assert "12 samples of 6 videos" in out and "as it was written" in out


def test_a_flipped_bit_exits_with_1_and_is_named(world, capsys):
    shard = sorted((world.root / "features").rglob("*.tar"))[0]
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert run(VerifyConfig(store_uri=str(world.root))) == 1
    out = capsys.readouterr().out
    assert str(shard.relative_to(world.root)) in out and "(video 'video" in out and "problems" in out


def test_a_storage_that_does_not_answer_exits_with_2(world, monkeypatch, capsys):
    def failing(uri):
        raise ConnectionError("the endpoint is away")

    monkeypatch.setattr(storage, "local_copy", failing)
    assert guarded(lambda: run(VerifyConfig(store_uri=str(world.root)))) == 2
    captured = capsys.readouterr()
    assert "the endpoint is away" in captured.err and "problem" not in captured.out


def test_many_findings_are_counted_and_few_are_printed(world, capsys):
    for shard in (world.root / "features").rglob("*.tar"):
        shard.unlink()
    assert run(VerifyConfig(store_uri=str(world.root), max_printed=1)) == 1
    assert capsys.readouterr().out.count("problem    ") == 2


def test_recompute_and_repair_of_a_store_as_a_user_runs_them(ray_cluster, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", seed=number)
    assert extract.job(config(tmp_path)) == 0
    store = FeatureStore.open(str(tmp_path / "store"))
    row = store.samples().filter(pl.col("video_id") == "1").row(0, named=True)
    shard = tmp_path / "store" / row["shard"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: row["offset"] + 700] + b"?" + whole[row["offset"] + 701 :])
    capsys.readouterr()
    assert run(VerifyConfig(store_uri=store.uri, repair=True)) == 0
    out = capsys.readouterr().out
    assert (
        "problem" in out and "repaired   1 videos were extracted again" in out and f"mended     {row['shard']}" in out
    )
    assert "as it was written" in out and shard.read_bytes() == whole
    assert run(VerifyConfig(store_uri=store.uri, recompute=0.5, repair=True)) == 0
    out = capsys.readouterr().out
    assert "of 2 samples that were drawn (seed 0)" in out and "0 above tolerance" in out and "repaired" not in out
    for number in range(3):
        os.rename(tmp_path / "videos" / f"{number}.mp4", tmp_path / f"{number}.mp4")
    assert run(VerifyConfig(store_uri=store.uri, recompute=0.1)) == 1  # nothing was compared: nothing is proved
    out = capsys.readouterr().out
    assert "recomputed 0 of 1" in out and "nothing was compared" in out and "as it was written" not in out


def test_damage_of_what_is_not_live_any_more_is_marked_without_any_configuration(world, capsys):
    row = world.store.samples().filter(pl.col("video_id") == "video003").row(0, named=True)
    for video_id in ids(6):
        world.remove(video_id)
    world.run()
    (world.root / row["shard"]).unlink()
    assert run(VerifyConfig(store_uri=str(world.root))) == 1
    out = capsys.readouterr().out
    assert "12 samples of them are not live any more" in out and "0 of them live" in out
    assert run(VerifyConfig(store_uri=str(world.root), repair=True)) == 0
    out = capsys.readouterr().out
    assert f"lost       video 'video003' by {row['encoder']}" in out and "are marked as damaged" in out


def test_another_job_or_no_configuration_is_said(world):
    with world.store.writing("jobs.extract"), pytest.raises(StoreIsHeld, match=r"jobs\.extract"):
        run(VerifyConfig(store_uri=str(world.root), recompute=0.1))
    with pytest.raises(UserError, match="set extract_config"):
        run(VerifyConfig(store_uri=str(world.root), recompute=0.1))


@pytest.mark.parametrize(
    "values",
    [{"num_threads": 0}, {"max_printed": 0}, {"recompute": 1.5}, {"tolerance": -1.0}, {"version": 3, "repair": True}],
)
def test_bad_values(values):
    with pytest.raises(UserError, match=next(iter(values))):
        VerifyConfig(store_uri="x", **values)


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="store_uri"):
        run(VerifyConfig(store_uri=str(tmp_path)))


def test_the_config_loads():
    assert load_config(VerifyConfig, "jobs/configs/verify.yaml").num_threads == 4
    assert Path("jobs/configs/verify.yaml").read_text().count("recompute") >= 1
