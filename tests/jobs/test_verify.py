import pytest

from hvlm.errors import UserError
from infra.config_io import load_config
from jobs.verify import VerifyConfig, run
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


def test_many_findings_are_counted_and_few_are_printed(world, capsys):
    for shard in (world.root / "features").rglob("*.tar"):
        shard.unlink()
    assert run(VerifyConfig(store_uri=str(world.root), max_printed=1)) == 1
    assert capsys.readouterr().out.count("problem    ") == 2


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="store_uri"):
        run(VerifyConfig(store_uri=str(tmp_path)))
    with pytest.raises(UserError, match="num_threads"):
        VerifyConfig(store_uri="x", num_threads=0)


def test_the_config_loads():
    assert load_config(VerifyConfig, "jobs/configs/verify.yaml").num_threads == 4
