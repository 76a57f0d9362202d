"""Rounds of a job that only writes files; `tests/chaos` plays them with a real extraction."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.chaos import round as round_module
from pipelines.chaos.round import ChaosError, Round
from pipelines.chaos.targets import SHARDS, STAGED, TARGETS, Target

# Stages what is not staged yet, publishes, and goes on for a while; with a second argument, has a part meanwhile.
JOB = """
import subprocess, sys, time
from pathlib import Path
def write(name):
    path = Path(sys.argv[1], name)
    if not path.exists():
        time.sleep(0.03)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
part = subprocess.Popen(["sleep", sys.argv[2], "0.0"]) if len(sys.argv) > 2 else None
for number in range(20):
    write(f"staging/run/{number}.tar")
if part:
    part.wait()
write("features/e/gen-000001/train.tar")
time.sleep(0.6)
"""


def new_round(folder: Path, *more: str, job: str = JOB, **options: Any) -> Round:
    store = folder / "store"
    command = [sys.executable, "-c", job, str(store), *more]
    return Round(command=command, store=store, rng=random.Random(0), num_files={STAGED: 20, SHARDS: 1}, **options)


@pytest.fixture(autouse=True)
def part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the encoder actor be the job's child."""
    monkeypatch.setitem(TARGETS, "encoder actor", Target(mark="sleep 60 0.0"))


def test_a_job_is_killed_started_again_and_left_to_its_end(tmp_path: Path) -> None:
    source = SimpleNamespace(change=lambda: "one was added")
    played = new_round(tmp_path, source=source)
    assert played.kill(["driver at publishing", "whole job", "driver"]) == []
    assert played.kills == {"driver at publishing": 1, "whole job": 1, "driver": 1}
    assert (played.num_changes, played.survived, played.hung) == (2, 0, 0)
    played.finish()
    assert played.num_changes == 3  # each time the job was dead; before its first start it was not


def test_what_does_not_come_up_is_missed(tmp_path: Path) -> None:
    played = new_round(tmp_path)
    assert played.kill(["raylet", "driver"]) == ["raylet"]
    assert played.kills == {"driver": 1} and played.survived == 0


def test_the_files_of_an_undisturbed_job_are_counted(tmp_path: Path) -> None:
    assert new_round(tmp_path).finish() == {STAGED: 20, SHARDS: 1}


def test_a_job_that_outlives_the_loss_of_a_part_survived(tmp_path: Path) -> None:
    played = new_round(tmp_path, "60")
    assert played.kill(["encoder actor", "raylet"]) == ["raylet"]
    assert played.kills == {"encoder actor": 1} and played.survived == 1


def test_a_job_that_neither_goes_on_nor_ends_is_counted_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_module, "_PATIENCE_S", 0.2)
    played = new_round(tmp_path, "60", job=JOB.replace("part.wait()", "part.wait(); time.sleep(60)"))
    assert played.kill(["encoder actor"]) == [] and played.hung == 1


@pytest.mark.parametrize("step", [lambda played: played.kill(["driver"]), lambda played: played.finish()])
def test_a_job_that_fails_when_left_alone_is_no_basis(tmp_path: Path, step: Any) -> None:
    with pytest.raises(ChaosError, match=r"ended with 2[\s\S]*no videos"):
        step(new_round(tmp_path, job="import sys; print('no videos'); sys.exit(2)"))
