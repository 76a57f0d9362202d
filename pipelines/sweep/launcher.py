"""Trials as Ray tasks that ask for nothing themselves: what they start on the cluster asks for CPUs and GPUs.

A trial's process does what the process of `jobs.train` and then of `jobs.evaluate` does. Of the ways to have several
on one cluster: threads of the job share one main thread (Ctrl-C reaches none of them) and one matplotlib, which is not
thread-safe; processes of our own would each join the cluster anew (5 s of imports and a token to hand on) and outlive a
job that is killed. A task has its own process, is ended by Ray with the job that started it, hands its error back as an
object, and Ray Train supports being driven from one. It stays on the job's node: there are its files and its working
directory, and no autoscaler takes that node away.
"""

import os
from collections.abc import Callable
from typing import Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hvlm.errors import JobError, UserError
from infra.logs import configure_logging
from pipelines.sweep.trial_run import TrialResult
from pipelines.sweep.trials import Trial

RunTrial = Callable[[Trial], TrialResult]


class Launcher(Protocol):
    """What starts trials beside each other; `RayTasks` is one."""

    def start(self, trial: Trial) -> None: ...

    def next_done(self) -> tuple[Trial, TrialResult | str]:
        """Wait for a trial to end; return its result, or why it failed."""
        ...

    def cancel(self) -> list[Trial]:
        """End the trials that run and return them."""
        ...


class RayTasks:
    """Runs `run_trial` in a Ray task per trial; Ray must be connected."""

    def __init__(self, run_trial: RunTrial) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Never tried again by Ray: the training itself restarts its workers, and a second process of a trial could meet
        # what is left of the first.
        self._task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_in_task)
        self._run_trial = run_trial
        self._running: dict[ray.ObjectRef, Trial] = {}

    def start(self, trial: Trial) -> None:
        """Start a trial."""
        self._running[self._task.remote(self._run_trial, trial, os.getcwd())] = trial

    def next_done(self) -> tuple[Trial, TrialResult | str]:
        """Wait for a trial to end; return its result, or why it failed."""
        done, _ = ray.wait(list(self._running), num_returns=1)
        trial = self._running.pop(done[0])
        try:
            return trial, ray.get(done[0])
        except ray.exceptions.RayError as error:
            return trial, _reason(error)

    def cancel(self) -> list[Trial]:
        """End the trials that run, with all that they started, and return them."""
        running = list(self._running.values())
        for reference in self._running:
            # By force: Ray Train's own handler of an interrupt takes tens of seconds, and checkpoints are whole anyway.
            # Actors end with the process that owns them; were they cancelled first, it would log a failed training.
            ray.cancel(reference, force=True, recursive=False)
        self._running.clear()
        return running


def _in_task(run_trial: RunTrial, trial: Trial, folder: str) -> TrialResult:
    os.chdir(folder)  # relative paths in configurations mean the job's folder; a cluster's workers have their own
    configure_logging()
    return run_trial(trial)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, (UserError, JobError)):
        return str(cause)
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}"
