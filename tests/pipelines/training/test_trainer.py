import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from ray.train import RunConfig

from hvlm.errors import JobError, UserError
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from infra.cluster import ClusterConfig, connect
from infra.tracking import RunTracker, TrackingConfig
from pipelines.training import trainer
from pipelines.training.checkpoints import list_checkpoints, read_model_state, read_trainer_state
from pipelines.training.config import CheckpointConfig, TrainConfig, TrainResources
from pipelines.training.job import TrainJob
from pipelines.training.loop import TrainOutcome
from pipelines.training.trainer import TrainReport, _cause, run_training, scaling

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(ClusterConfig(address="local", num_cpus=2, object_store_memory_bytes=200_000_000)):
        yield


def worker_processes() -> list[psutil.Process]:
    """The training workers of this test's Ray, found as descendants of this process by their Ray title."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def small(config: TrainConfig) -> TrainConfig:
    encoder = TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=16, dropout=0.0)
    model = HierarchicalVLMConfig(
        encoder=encoder, projector=ProjectorConfig(dim=8), alignment=AlignmentConfig(enabled=False)
    )
    return replace(config, model=model, objective=type(config.objective)())


@pytest.mark.slow
def test_a_killed_worker_costs_no_step(make_config: MakeConfig, tracking: TrackingConfig, cluster: None) -> None:
    """Two gloo workers; one is killed between two checkpoints; the training ends at its last step, in the same run."""
    config = small(
        make_config(
            epochs=100,
            max_steps=240,
            log_every_steps=20,
            checkpoint=CheckpointConfig(every_steps=20, keep_last=3),
            resources=TrainResources(num_workers=2, cpus_per_worker=1, max_failures=2),
            tracking=replace(tracking, system_metrics_interval_s=1.0),
        )
    )
    reports: list[TrainReport] = []
    thread = threading.Thread(target=lambda: reports.append(run_training(config)))
    thread.start()
    victim = None
    deadline = time.monotonic() + 240
    while victim is None and time.monotonic() < deadline:
        time.sleep(0.2)
        saved = list_checkpoints(config.output_uri)
        if saved and saved[-1].step >= 60:
            victim = worker_processes()[-1]
            os.kill(victim.pid, signal.SIGKILL)
            killed_at = saved[-1].step
    assert victim is not None, "no checkpoint was written"
    thread.join(timeout=240)
    assert len(reports) == 1 and killed_at < 240
    outcome, job = reports[0].outcome, reports[0].job
    assert outcome.step == job.total_steps == 240 and outcome.stopped is None
    assert outcome.checkpoint_uri is not None and read_trainer_state(outcome.checkpoint_uri)["step"] == 240
    assert all(value.isfinite().all() for value in read_model_state(outcome.checkpoint_uri).values())

    client = MlflowClient(job.tracking_uri)
    history = [metric.step for metric in client.get_metric_history(job.run_id, "train/loss/total")]
    assert history == list(range(20, 241, 20))
    run = client.get_run(job.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["num_workers"] == "2"
    assert run.data.tags["checkpoint.latest"] == outcome.checkpoint_uri
    assert any(name.startswith("system/") for name in run.data.metrics)

    again = run_training(config)
    assert again.resumed_step == again.outcome.step == 240 and again.job.run_id == job.run_id
    assert again.duration_s < reports[0].duration_s / 2


def test_a_cluster_that_is_too_small_is_refused(make_config: MakeConfig, cluster: None) -> None:
    config = small(make_config(max_steps=2, resources=TrainResources(num_workers=4, cpus_per_worker=2)))
    with pytest.raises(UserError, match=r"resources\.num_workers: got a need of 8 CPU; expected at most .* 2 CPU"):
        run_training(config)
    gpu = replace(config, output_uri=config.output_uri + "-gpu", resources=TrainResources(use_gpu=True))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="1 GPU"):
            run_training(gpu)
    assert MlflowClient(str(config.tracking.uri)).search_experiments()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_training_that_is_stopped_is_called_killed(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def stopped(job: TrainJob) -> TrainOutcome:
        raise stop

    monkeypatch.setattr(trainer, "connect", lambda _: nullcontext())
    monkeypatch.setattr(trainer, "_fit", stopped)
    config = small(make_config(max_steps=2))
    with pytest.raises(stop):
        run_training(config)
    client = MlflowClient(str(config.tracking.uri))
    run, *_ = client.search_runs([each.experiment_id for each in client.search_experiments()])  # the newest first
    assert run.info.status == "KILLED"


def test_an_embedded_ray_is_not_watched_through_a_dashboard(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def kinds() -> set[str]:
        made = trainer._Trainer(lambda: None, run_config=RunConfig(storage_path=str(tmp_path)))
        return {type(callback).__name__ for callback in made._create_default_callbacks()}

    assert "PlacementGroupCleanerCallback" not in kinds() and "BackendSetupCallback" in kinds()
    monkeypatch.setattr(trainer, "get_dashboard_url", lambda: "host:8265")
    assert "PlacementGroupCleanerCallback" in kinds()
    assert not any("WorkingDir" in kind for kind in kinds())  # a relative path of the YAML means the same in a worker


def test_what_ray_is_asked_for() -> None:
    asked = scaling(TrainResources(num_workers=(1, 4), cpus_per_worker=2.0), {"CPU": 16, "GPU": 4})
    assert asked.use_gpu and asked.num_workers == (1, 4) and asked.resources_per_worker == {"CPU": 2.0, "GPU": 1.0}
    assert not scaling(TrainResources(), {"CPU": 2}).use_gpu
    assert not scaling(TrainResources(use_gpu=False), {"CPU": 2, "GPU": 1}).use_gpu


def test_the_users_mistake_behind_a_failed_worker_comes_out() -> None:
    mistake = UserError(what="a", got="b", expected="c", do="d")
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = mistake
    failed = RuntimeError("training failed")
    failed.worker_failures = {1: wrapped}  # type: ignore[attr-defined]
    assert _cause(failed) is mistake
    failed.worker_failures = {0: ValueError("boom")}  # type: ignore[attr-defined]
    cause = _cause(failed)
    assert isinstance(cause, JobError) and "the training failed: rank 0: ValueError: boom" in str(cause)


@pytest.fixture
def refusing(make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    """A training whose MLflow server goes away before its end."""
    job = make_job()
    tracker = RunTracker(job.tracking_uri, job.run_id)

    def refuse(status: str) -> None:
        raise MlflowException("the server is gone")

    monkeypatch.setattr(tracker, "finish", refuse)
    monkeypatch.setattr(trainer, "prepare", lambda config: (job, tracker))
    monkeypatch.setattr(trainer, "connect", lambda config: nullcontext())
    return job


def test_the_first_error_comes_out_when_mlflow_fails_too(refusing: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: TrainJob) -> TrainOutcome:
        raise JobError("the workers failed")

    monkeypatch.setattr(trainer, "_fit", fail)
    with pytest.raises(JobError, match="the workers failed"):
        run_training(refusing.config)


def test_mlflow_that_fails_at_the_end_is_the_users_error(refusing: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = TrainOutcome(step=1, metrics={}, checkpoint_uri=None, best_uri=None)
    monkeypatch.setattr(trainer, "_fit", lambda job: outcome)
    with pytest.raises(UserError, match=r"MLflow tracking: got .*the server is gone"):
        run_training(refusing.config)


def test_threads_follow_the_cpus_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(trainer.torch, "set_num_threads", asked.append)
    trainer._set_threads(TrainResources(cpus_per_worker=0.5), torch.device("cpu"))
    trainer._set_threads(TrainResources(threads_per_worker=3), torch.device("cuda"))
    trainer._set_threads(TrainResources(), torch.device("cuda"))
    assert asked == [1, 3]
