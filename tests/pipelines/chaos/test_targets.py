"""A target's moment follows what the job has come to, whatever the time."""

import os
import random
import time
from pathlib import Path

import pytest

from pipelines.chaos import targets as targets_module
from pipelines.chaos.targets import CLUSTER_TARGETS, STAGED, TARGETS, Moment, num_written

DRIVER, WORKER, OTHER = object(), object(), object()


def moment(name: str, store: Path, most: int = 0, seed: int = 0) -> Moment:
    return Moment(TARGETS[name], store, most, time.time() - 100, random.Random(seed))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment comes with its sign."""
    monkeypatch.setattr(targets_module, "_PAUSE_S", 0.0)


def stage(store: Path, number: int, age_s: float = 0.0) -> None:
    folder = store / "staging" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        (folder / f"{index}.tar").touch()


def test_the_driver_dies_while_the_snapshot_is_taken(tmp_path: Path) -> None:
    waiting = moment("driver at the snapshot", tmp_path)
    assert waiting.victims({DRIVER: "python -m jobs.extract"}) == []
    assert waiting.victims({DRIVER: "python", OTHER: "ray::_identify_batch"}) == [DRIVER]
    assert waiting.victims({DRIVER: "python"}) == [DRIVER]  # its moment has come, and it is there


def test_a_part_dies_as_soon_as_it_is_there(tmp_path: Path) -> None:
    waiting = moment("decoding child", tmp_path)
    child = "python -m pipelines.extraction.sandbox_child"
    assert waiting.victims({DRIVER: "", WORKER: "ray::_identify_batch", OTHER: child}) == []
    assert waiting.victims({DRIVER: "", WORKER: "ray::MapBatches(Decoder)"}) == []
    assert waiting.victims({DRIVER: "", WORKER: "ray::IDLE", OTHER: child}) == [OTHER]


def test_so_much_of_what_is_left_is_written_first(tmp_path: Path) -> None:
    wanted = {moment("driver", tmp_path, most=4, seed=seed)._wanted for seed in range(40)}
    assert wanted == {1, 2, 3, 4} and moment("driver", tmp_path)._wanted == 1
    waiting = moment("driver", tmp_path, most=1)
    assert waiting.victims({DRIVER: ""}) == []
    stage(tmp_path, 1)
    assert waiting.victims({DRIVER: ""}) == [DRIVER]


def test_what_earlier_jobs_wrote_does_not_count(tmp_path: Path) -> None:
    stage(tmp_path, 3)
    assert num_written(tmp_path, STAGED, 0.0) == 3 and num_written(tmp_path, "", 0.0) == 0
    assert num_written(tmp_path, STAGED, time.time() + 1) == 0
    os.rename(tmp_path / "staging/run/0.tar", tmp_path / "staging/run/0.tmp")
    assert num_written(tmp_path, STAGED, 0.0) == 2


def test_a_kill_comes_up_to_a_pause_after_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_module, "_PAUSE_S", 1000.0)
    waiting = moment("driver at the snapshot", tmp_path)
    now_s = time.monotonic()
    assert waiting.victims({DRIVER: "", OTHER: "ray::_identify_batch"}) == []
    monkeypatch.setattr(targets_module.time, "monotonic", lambda: now_s + 1001.0)
    assert waiting.victims({DRIVER: ""}) == [DRIVER]


def test_a_cluster_has_nodes_for_raylets() -> None:
    assert CLUSTER_TARGETS.keys() ^ TARGETS.keys() == {"raylet", "whole job", "node"}
