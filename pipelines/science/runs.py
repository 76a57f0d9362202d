"""The trials' runs as MLflow has them, with their single answers: the only source of gates and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from hvlm.synthetic.planted_metrics import Answers
from infra.tracking import tracking_errors
from pipelines.science.measure import planted_metric

WORKER_METHODS = ("one_worker", "two_workers")
STEP_METRICS = ("train/loss/child/total", "train/loss/parent/total", "train/grad_norm")
"""What must be equal step by step on one and on two workers: a wrong factor of the gradient shows in its norm."""
DATA_TAG = "world.sha256"
_START_TAG = "start.step"  # of a training that begins with another one's weights


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """One trial.

    Args:
        data: hash of its world.
        start_step: of the training whose weights it began with; 0 from scratch.
        metrics: the last value of each. answers: behind those of the planted questions, by the same names.
        steps: of the trials on one and two workers, each step's values.
    """

    method: str
    seed: int
    run_id: str
    commit: str
    data: str
    start_step: int
    metrics: Mapping[str, float]
    answers: Mapping[str, Answers]
    steps: Mapping[str, Sequence[float]]

    def planted(self, split: str, name: str) -> float:
        """Return a metric of the planted questions."""
        return self.metrics[planted_metric(split, name)]

    def credit(self, split: str, name: str) -> NDArray[np.float64]:
        """Return what each of its questions is worth."""
        return self.answers[planted_metric(split, name)].credit_Q

    def updates(self, level: str) -> int:
        """Return how many steps of `child` or `parent` it took."""
        return int(self.metrics[f"train/{level}/steps"])


def read_trial_runs(uri: str, answers: Mapping[str, Mapping[str, Answers]]) -> list[TrialRun]:
    """Return the runs of a sweep's trials in their order.

    Args:
        uri: of MLflow.
        answers: run id -> its answers to the planted questions.

    Raises:
        UserError: MLflow cannot be read, or lacks one.
    """
    client = MlflowClient(uri)
    with tracking_errors(uri):
        return [_read(client, run_id, of_run) for run_id, of_run in answers.items()]


def measured(runs: Sequence[TrialRun]) -> dict[str, list[TrialRun]]:
    """Return method -> its runs in the order of the seeds, for the methods that were measured."""
    found: dict[str, list[TrialRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.method not in WORKER_METHODS:
            found.setdefault(run.method, []).append(run)
    return found


def by_method(runs: Sequence[TrialRun], names: Sequence[str], split: str) -> dict[str, dict[str, list[float]]]:
    """Return method -> metric -> its values in the order of the seeds, for the methods that were measured."""
    return {
        method: {name: [run.planted(split, name) for run in of_method] for name in names}
        for method, of_method in measured(runs).items()
    }


def by_step(runs: Sequence[TrialRun]) -> dict[str, dict[str, list[float]]]:
    """Return method -> metric -> its values step by step, of the trials on one and two workers, seed after seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        for name, values in run.steps.items():
            found.setdefault(run.method, {}).setdefault(name, []).extend(values)
    return found


def _read(client: MlflowClient, run_id: str, answers: Mapping[str, Answers]) -> TrialRun:
    run = client.get_run(run_id)
    tags = run.data.tags
    method = tags["sweep.method"]
    steps = {}
    if method in WORKER_METHODS:
        for name in STEP_METRICS:
            history = sorted(client.get_metric_history(run_id, name), key=lambda metric: metric.step)
            steps[name] = [metric.value for metric in history]
    return TrialRun(
        method=method,
        seed=int(tags["sweep.seed"]),
        run_id=run_id,
        commit=tags.get("git.commit", "unknown"),
        data=tags[DATA_TAG],
        start_step=int(tags.get(_START_TAG, 0)),
        metrics=run.data.metrics,
        answers=answers,
        steps=steps,
    )
