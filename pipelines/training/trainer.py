"""Runs a training on Ray Train (V2): N workers, gloo on CPUs, NCCL on GPUs.

    prepare (job's process) ──► TorchTrainer ──1:N──► train loop per rank ──► outcome of rank 0

A worker that dies takes its group with it; Ray starts a new group, with as many workers as there is room for, and each
rank goes on from the last complete checkpoint of `output_uri`. Checkpoints are our own files, not Ray's, so that a job
that is killed altogether continues by the same command.
"""

import dataclasses
import logging
import os
import time
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from ray._private.services import get_webui_url_from_internal_kv
from ray._private.worker import WORKER_MODE, get_dashboard_url, global_worker
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.working_dir_setup import WorkingDirectorySetupCallback

from hvlm.errors import JobError, UserError
from infra import storage
from infra.cluster import Bundle, connect, require_resources, total_resources
from infra.logs import configure_logging
from infra.tracking import RunTracker, tracking_errors
from pipelines.training.checkpoints import best_checkpoint, list_checkpoints
from pipelines.training.config import TrainConfig, TrainResources
from pipelines.training.job import TrainJob
from pipelines.training.loop import TrainOutcome, train
from pipelines.training.prepare import prepare
from pipelines.training.system import RankContext

logger = logging.getLogger(__name__)

_COLLECTIVE_TIMEOUT_S = 600  # a rank that waits longer than this for another one fails, and the group starts again


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a training job says at its end. `resumed_step`: the step at which it started."""

    job: TrainJob
    outcome: TrainOutcome
    resumed_step: int
    duration_s: float


def run_training(config: TrainConfig) -> TrainReport:
    """Train to the last step and return the report; a finished training is not run again.

    Raises:
        UserError: the configuration does not fit the store, the checkpoints or the cluster, or MLflow fails.
        JobError: the workers failed more often than `resources.max_failures`.
    """
    config = dataclasses.replace(
        config, store_uri=storage.absolute_uri(config.store_uri), output_uri=storage.absolute_uri(config.output_uri)
    )
    started = time.monotonic()
    job, tracker = prepare(config)
    with tracker.finished_on_error():
        outcome = finished_outcome(job)
        resumed_step = outcome.step if outcome else _last_step(job)
        if outcome is None:
            with connect(config.cluster):
                outcome = _fit(job)
    with tracking_errors(tracker.uri):
        tracker.finish("FAILED" if outcome.stopped else "FINISHED")
    return TrainReport(job=job, outcome=outcome, resumed_step=resumed_step, duration_s=time.monotonic() - started)


def finished_outcome(job: TrainJob) -> TrainOutcome | None:
    """Return the outcome of a training whose last step has a checkpoint or that an alarm stopped, else None."""
    checkpoints = list_checkpoints(job.config.output_uri)
    stopped = checkpoints[-1].stopped if checkpoints and job.config.alarms.stop else None
    if stopped is not None:
        logger.error("an alarm stopped this training; alarms.stop=false lets it go on")
    elif not checkpoints or checkpoints[-1].step < job.total_steps:
        return None
    latest, best = checkpoints[-1], best_checkpoint(checkpoints) or checkpoints[-1]
    return TrainOutcome(
        step=latest.step, metrics=latest.metrics, checkpoint_uri=latest.uri, best_uri=best.uri, stopped=stopped
    )


def scaling(resources: TrainResources, cluster: dict[str, float]) -> ScalingConfig:
    """Return what Ray Train is asked for, on a cluster with these total resources."""
    use_gpu = cluster.get("GPU", 0) > 0 if resources.use_gpu is None else resources.use_gpu
    per_worker = {"CPU": resources.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})
    return ScalingConfig(num_workers=resources.num_workers, use_gpu=use_gpu, resources_per_worker=per_worker)


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer whose workers stay in the job's working directory, and that is quiet on an embedded Ray.

    Ray Train sends its workers into a folder of its own, where a relative path of the configuration (the text tower's
    model or weights) would mean another file.
    Ray Train watches its controller through the dashboard's API and warns every second where there is no dashboard.
    What that watch cleans up ends with an embedded Ray anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        unwanted: tuple[type[Any], ...] = (WorkingDirectorySetupCallback,)
        if not _dashboard_url():
            unwanted += (PlacementGroupCleanerCallback,)
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, unwanted)]


def _dashboard_url() -> str | None:
    """Return where the dashboard is, if there is one; in a worker (a sweep's trial) Ray's own answer is a guess."""
    in_worker = global_worker.mode == WORKER_MODE
    url: str | None = get_webui_url_from_internal_kv() if in_worker else get_dashboard_url()
    return url


def _fit(job: TrainJob) -> TrainOutcome:
    resources = job.config.resources
    wanted = scaling(resources, total_resources())
    least = resources.worker_range[0]
    require_resources([Bundle(wanted.resources_per_worker, least)], what="resources.num_workers")
    if not _dashboard_url():
        # An embedded Ray has no nodes that a cloud takes back; the watcher only prints an error of its own there.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    trainer = _Trainer(
        _train_worker,
        train_loop_config={"job": job},
        scaling_config=wanted,
        torch_config=TorchConfig(backend="nccl" if wanted.use_gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S),
        run_config=RunConfig(
            # A name of its own for every start: Ray's bookkeeping of an earlier start must not be restored.
            name=f"start-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}",
            storage_path=storage.join(job.config.output_uri, "ray"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    outcome: TrainOutcome = result.return_value
    return outcome


def _train_worker(loop_config: dict[str, Any]) -> TrainOutcome | None:
    """Run one rank; rank 0 tracks, and its outcome is the job's."""
    configure_logging()
    job: TrainJob = loop_config["job"]
    ray_context = ray.train.get_context()
    rank, device = ray_context.get_world_rank(), get_device()
    _set_threads(job.config.resources, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the object collectives of NCCL go through the current device
    context = RankContext(rank, ray_context.get_world_size(), device)
    if rank > 0:
        train(job, context, None)
        return None
    tracker = RunTracker(job.tracking_uri, job.run_id, resumed=True)
    tracker.set_tags({"num_workers": context.world_size, "device": _device_name(device)})
    tracker.start_system_metrics(job.config.tracking.system_metrics_interval_s)
    try:
        return train(job, context, tracker)
    finally:
        tracker.close()


def _set_threads(resources: TrainResources, device: torch.device) -> None:
    # Without a limit every worker of a node starts one thread per core, and they slow each other down.
    if resources.threads_per_worker is not None:
        torch.set_num_threads(resources.threads_per_worker)
    elif device.type == "cpu":
        torch.set_num_threads(max(1, int(resources.cpus_per_worker)))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _last_step(job: TrainJob) -> int:
    checkpoints = list_checkpoints(job.config.output_uri)
    return checkpoints[-1].step if checkpoints else 0


def _cause(error: Exception) -> Exception:
    """Return the user's mistake behind a failed training if there is one, else one error with the first worker's
    message."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        found: BaseException | None = failure
        while found is not None:
            if isinstance(found, UserError):
                return found
            found = getattr(found, "cause", None) or found.__cause__
    each = [f"rank {rank}: {type(failure).__name__}: {failure}" for rank, failure in sorted(failures.items())]
    return JobError(
        f"the training failed: {'; '.join(each) or error}. The log above has the stack trace; "
        "the same command continues from the last checkpoint"
    )
