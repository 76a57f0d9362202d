import pytest

from hvlm.errors import UserError
from infra.config_io import load_config
from jobs.compact import CompactConfig, job
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add(*ids(4))
    world.run()
    world.remove("video001")
    world.run()
    return world


def test_it_says_what_it_did_and_then_that_there_is_nothing_to_do(ray_cluster, world, capsys):
    config = CompactConfig(store_uri=str(world.root))
    assert job(config) == 0
    out = capsys.readouterr().out
    assert "6 samples of 3 videos from 1 generations (1) to generation 2" in out
    assert "dead samples left out: 2" in out and "kept       1 generations (1)" in out and "deleted" not in out
    assert job(config) == 0
    assert "nothing to compact" in capsys.readouterr().out
    assert job(CompactConfig(store_uri=str(world.root), keep_versions_days=0)) == 0
    out = capsys.readouterr().out
    assert "deleted    1 generations (1)" in out and "kept" not in out and "compacted" in out


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="store_uri"):
        job(CompactConfig(store_uri=str(tmp_path)))


def test_the_config_loads():
    assert load_config(CompactConfig, "jobs/configs/compact.yaml").keep_versions_days == 30
