"""Trials in real Ray tasks; the trials themselves are replaced."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.sweep.launcher import RayTasks
from pipelines.sweep.trial_run import TrialResult
from pipelines.sweep.trials import Trial
from tests.pipelines.sweep.world import fake_trial, sleeping_trial, trials


@pytest.fixture
def tasks(ray_cluster: None) -> Iterator[RayTasks]:
    launcher = RayTasks(fake_trial)
    yield launcher
    launcher.cancel()


def test_each_trial_ends_with_its_result_or_its_reason(tasks: RayTasks, tmp_path: Path) -> None:
    """A process that dies, an error of ours and any other: each is its own trial's alone."""
    for trial in trials(tmp_path, "full", "wrong", "broken", "killed"):
        tasks.start(trial)
    ended = dict((trial.method, result) for trial, result in (tasks.next_done() for _ in range(4)))
    assert isinstance(ended["full"], TrialResult) and ended["full"].metrics[0]["ours"] == 0.0
    assert str(ended["wrong"]).startswith("the wrong trial: got training is missing")
    assert ended["broken"] == "ZeroDivisionError: by zero"
    assert "WorkerCrashedError" in str(ended["killed"])
    assert tasks.cancel() == []


def test_cancelled_trials_end_at_once(ray_cluster: None, tmp_path: Path) -> None:
    started: list[Trial] = trials(tmp_path, "a", "b")
    launcher = RayTasks(sleeping_trial)
    for trial in started:
        launcher.start(trial)
    pids = [wait_for(tmp_path / f"sweep/{trial.name}/pid") for trial in started]
    assert launcher.cancel() == started
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def wait_for(file: Path) -> int:
    """The number in a file, once it is there."""
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return int(file.read_text())
