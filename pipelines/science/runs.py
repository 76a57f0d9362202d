"""The trials' runs as MLflow has them: the only source of gates and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from infra.tracking import tracking_errors
from pipelines.science.measure import planted_metric

WORKER_METHODS = ("one_worker", "two_workers")
STEP_METRICS = ("train/loss/child/total", "train/loss/parent/total", "train/grad_norm")
"""What must be equal step by step on one and on two workers: a wrong factor of the gradient shows in its norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """One trial. metrics: the last value of each. steps: of the trials on one and two workers, each step's values."""

    method: str
    seed: int
    run_id: str
    commit: str
    metrics: Mapping[str, float]
    steps: Mapping[str, Sequence[float]]

    def planted(self, split: str, name: str) -> float:
        """Return a metric of the planted questions."""
        return self.metrics[planted_metric(split, name)]


def read_trial_runs(uri: str, run_ids: Sequence[str]) -> list[TrialRun]:
    """Return the runs of a sweep's trials in this order.

    Raises:
        UserError: MLflow cannot be read, or lacks one.
    """
    client = MlflowClient(uri)
    with tracking_errors(uri):
        return [_read(client, run_id) for run_id in run_ids]


def by_method(runs: Sequence[TrialRun], names: Sequence[str], split: str) -> dict[str, dict[str, list[float]]]:
    """Return method -> metric -> its values in the order of the seeds, for the methods that were measured."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.method not in WORKER_METHODS:
            for name in names:
                found.setdefault(run.method, {}).setdefault(name, []).append(run.planted(split, name))
    return found


def by_step(runs: Sequence[TrialRun]) -> dict[str, dict[str, list[float]]]:
    """Return method -> metric -> its values step by step, of the trials on one and two workers, seed after seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        for name, values in run.steps.items():
            found.setdefault(run.method, {}).setdefault(name, []).extend(values)
    return found


def _read(client: MlflowClient, run_id: str) -> TrialRun:
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
        metrics=run.data.metrics,
        steps=steps,
    )
