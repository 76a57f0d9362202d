"""The parts of the chaos harness; `tests/chaos` runs it on a real extraction."""

import random
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import psutil
import pytest

from pipelines.extraction import chaos
from pipelines.extraction.chaos import ChaosError, ChaosReport, compare, describe, run_chaos
from pipelines.extraction.chaos_cluster import family_of
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "store")
    world.add(*ids(4))
    world.run()
    return world


def test_equal_stores_have_equal_descriptions(world: World, tmp_path: Path) -> None:
    again = World(tmp_path / "again")
    again.add(*ids(4))
    again.run(order=-1)
    assert compare(describe(str(world.root)), describe(str(again.root))) == []


def test_each_difference_is_seen(world: World) -> None:
    wanted = describe(str(world.root))
    shard = sorted(Path(world.root, "features").rglob("*.tar"))[0]
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    (Path(world.root) / "staging").mkdir(exist_ok=True)
    (Path(world.root) / "staging" / "orphan.tar").write_bytes(b"")
    world.store.commit_failures(
        [{"video_id": "x", "stage": "decode", "reason": "truncated", "message": "m"} | PERMANENT]
    )
    lines = compare(wanted, describe(str(world.root)))
    assert [line.partition(":")[0] for line in lines] == ["files", "quarantine", "left in staging", "found by verify"]


PERMANENT = {"permanent": True}


def test_each_target_has_its_turn() -> None:
    drawn = list(islice(chaos._shuffled(sorted(chaos.TARGETS), random.Random(0)), 3 * len(chaos.TARGETS)))
    assert Counter(drawn) == dict.fromkeys(chaos.TARGETS, 3) and drawn[:7] != drawn[7:14]


def test_a_target_that_does_not_run_costs_the_driver() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    family = [psutil.Process(process.pid)]
    assert chaos._kill("raylet", family, random.Random(0)) == "driver"
    assert process.wait(10) == -9


def test_the_named_part_is_what_is_killed() -> None:
    code = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60', '0']); print('up', flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(chaos.TARGETS, "raylet", "sleep 60 0")
        assert chaos._kill("raylet", family_of(process.pid), random.Random(0)) == "raylet"
    assert process.wait(10) == 0


def test_a_job_that_fails_when_left_alone_is_no_basis(tmp_path: Path) -> None:
    command = lambda store: [sys.executable, "-c", "import sys; print('no videos'); sys.exit(2)"]  # noqa: E731
    with pytest.raises(ChaosError, match=r"ended with 2[\s\S]*no videos"):
        run_chaos(command, tmp_path / "new", num_kills=1, seed=0)


def test_a_job_that_ends_before_its_kill_counts_none() -> None:
    report = ChaosReport()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    assert not chaos._kill_once(process, "driver", random.Random(0), 5.0, report, None)
    assert report.kills.total() == 0
