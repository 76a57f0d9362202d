import errno
import json
import os
import shlex
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from infra.tracking import (
    DatasetReference,
    RunTracker,
    TrackingConfig,
    end_run,
    git_tags,
    open_run,
    redact,
    resolve_tracking_uri,
    tracking_errors,
    ui_command,
)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def config(database: str) -> TrackingConfig:
    return TrackingConfig(uri=database, experiment="tests", run_name="one")


def test_the_environment_wins_and_the_default_is_an_absolute_sqlite_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_tracking_uri(TrackingConfig()) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert (tmp_path / "runs").is_dir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert resolve_tracking_uri(TrackingConfig(uri="sqlite:///x.db")) == "http://server:5000"


def test_a_run_survives_a_restart_and_its_steps_only_grow(config: TrackingConfig, tmp_path: Path) -> None:
    record = str(tmp_path / "run.json")
    first = open_run(config, record)
    for step in (1, 2, 3):
        first.log_metrics({"loss": float(step), "other": 0.5}, step)
    first.close()
    assert not first.resumed

    second = open_run(config, record)
    assert second.resumed and second.run_id == first.run_id
    for step in (2, 3, 4):
        second.log_metrics({"loss": 100.0 + step, "new": 1.0}, step)
    second.finish("FINISHED")

    client = MlflowClient(config.uri)
    history = [(metric.step, metric.value) for metric in client.get_metric_history(first.run_id, "loss")]
    assert history == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 104.0)]
    assert [metric.step for metric in client.get_metric_history(first.run_id, "new")] == [2, 3, 4]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_a_run_has_the_tags_of_its_configuration_at_every_start(config: TrackingConfig, tmp_path: Path) -> None:
    record, client = str(tmp_path / "run.json"), MlflowClient(config.uri)
    run_id = open_run(replace(config, tags={"mlflow.parentRunId": "p", "a": "1"}), record).run_id
    assert {"mlflow.parentRunId": "p", "a": "1"}.items() <= client.get_run(run_id).data.tags.items()
    open_run(replace(config, tags={"a": "2"}), record)
    assert {"mlflow.parentRunId": "p", "a": "2"}.items() <= client.get_run(run_id).data.tags.items()


def test_a_run_whose_process_was_killed_is_ended_once(config: TrackingConfig, tmp_path: Path) -> None:
    record, client = str(tmp_path / "run.json"), MlflowClient(config.uri)
    end_run(config, record, "KILLED")  # there is none: nothing happens
    run_id = open_run(config, record).run_id
    end_run(config, record, "KILLED")
    assert client.get_run(run_id).info.status == "KILLED"
    open_run(config, record).finish("FINISHED")
    end_run(config, record, "FAILED")
    assert client.get_run(run_id).info.status == "FINISHED"


def test_parameters_that_a_crash_left_out_come_at_the_next_start(config: TrackingConfig, tmp_path: Path) -> None:
    record = str(tmp_path / "run.json")
    run_id = open_run(config, record).run_id  # and the process ends here
    client = MlflowClient(config.uri)
    open_run(config, record).log_config({"a": 1, "b": 2}, {"a": 1, "b": 2})
    assert client.get_run(run_id).data.params == {"a": "1", "b": "2"}
    assert [each.path for each in client.list_artifacts(run_id)] == ["config.json"]
    open_run(config, record).log_config({"a": 9, "b": 2, "c": 3}, {"a": 9})  # parameters are final
    assert client.get_run(run_id).data.params == {"a": "1", "b": "2", "c": "3"}
    assert len(client.get_run(run_id).data.tags["git.commit"]) == 40


def test_a_run_that_the_server_does_not_have_is_replaced(config: TrackingConfig, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"run_id": "0" * 32}))
    tracker = open_run(config, str(record))
    assert not tracker.resumed and json.loads(record.read_text())["run_id"] == tracker.run_id


def test_config_dataset_and_checkpoints_stand_in_the_run(config: TrackingConfig, tmp_path: Path) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    tracker.log_config({"a.b": 1, "c": "x" * 9000}, {"a": {"b": 1}})
    tracker.log_dataset(
        DatasetReference(name="store", store_uri="/data/store", version=4, manifest_hash="ab" * 32, num_samples=9)
    )
    tracker.log_checkpoint(20, "/out/step-20", {"recall": 0.5}, best=True)
    tracker.log_checkpoint(30, "/out/step-30", {"recall": 0.4}, best=False)
    run = MlflowClient(config.uri).get_run(tracker.run_id)
    assert run.data.params["a.b"] == "1" and len(run.data.params["c"]) == 500
    assert run.data.tags["checkpoint.best"] == "/out/step-20" and run.data.tags["checkpoint.latest"] == "/out/step-30"
    assert run.data.tags["store.version"] == "4"
    (dataset,) = run.inputs.dataset_inputs
    assert json.loads(dataset.dataset.source) == {"uri": "/data/store", "version": 4, "manifest_hash": "ab" * 32}
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert json.loads((artifacts / "checkpoints/step-000000020.json").read_text())["uri"] == "/out/step-20"
    assert json.loads((artifacts / "config.json").read_text()) == {"a": {"b": 1}}
    assert artifacts.is_relative_to(Path(config.uri.removeprefix("sqlite:///")).parent)


def test_no_secret_reaches_the_database_or_the_artifacts(config: TrackingConfig, tmp_path: Path) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    values = {
        "store_uri": "s3://me:hunter2@host/store",
        "api_key": "hunter2",
        "link": "https://h/x?X-Amz-Signature=hunter2",
    }
    tracker.log_config(values, {"nested": values, "list": ["s3://me:hunter2@host"]})
    tracker.set_tags({"where": values["store_uri"]})
    tracker.log_checkpoint(1, "s3://me:hunter2@host/ckpt", {}, best=True)
    tracker.log_dataset(
        DatasetReference(name="d", store_uri=values["store_uri"], version=1, manifest_hash="c" * 64, num_samples=1)
    )
    folder = Path(config.uri.removeprefix("sqlite:///")).parent
    with sqlite3.connect(folder / "mlflow.db") as connection:
        assert "hunter2" not in "\n".join(connection.iterdump())
    artifacts = list((folder / "mlartifacts").rglob("*.json"))
    assert artifacts and not any("hunter2" in file.read_text() for file in artifacts)


def test_a_value_that_is_not_finite_is_a_tag_and_not_a_point(config: TrackingConfig, tmp_path: Path) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    tracker.log_metrics({"loss": float("nan")}, 7)
    tracker.close()
    data = MlflowClient(config.uri).get_run(tracker.run_id).data
    assert data.tags["not_finite.loss"] == "nan at step 7" and "loss" not in data.metrics


def test_system_metrics_are_logged(config: TrackingConfig, tmp_path: Path) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    tracker.start_system_metrics(0.2)
    deadline = time.monotonic() + 10
    client = MlflowClient(config.uri)
    while time.monotonic() < deadline:
        if any(key.startswith("system/") for key in client.get_run(tracker.run_id).data.metrics):
            break
        time.sleep(0.1)
    tracker.finish("FINISHED")
    assert "system/cpu_utilization_percentage" in client.get_run(tracker.run_id).data.metrics


def test_metrics_are_sent_in_groups(config: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = open_run(config, str(tmp_path / "run.json")).run_id
    tracker = RunTracker(str(config.uri), run_id, flush_every_s=3600)
    calls: list[int] = []
    original = tracker._client.log_batch
    monkeypatch.setattr(tracker._client, "log_batch", lambda *a, **k: (calls.append(1), original(*a, **k)))
    for step in range(50):
        tracker.log_metrics({"loss": 1.0}, step)
    assert not calls
    tracker.close()
    assert len(calls) == 1


def test_git_commit_comes_from_the_environment_where_there_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(git_tags()["git.commit"]) == 40
    monkeypatch.chdir(tmp_path)
    assert git_tags() == {"git.commit": "unknown"}
    monkeypatch.setenv("HVLM_GIT_COMMIT", "abc")
    assert git_tags()["git.commit"] == "abc"


def test_texts() -> None:
    assert redact("postgresql://u:p@h/db and s3://bucket/x") == "postgresql://***@h/db and s3://bucket/x"
    assert redact("postgresql://u:p@ss@h/db and s3://b/x@y") == "postgresql://***@h/db and s3://b/x@y"
    assert "hunter2" not in redact("https://a.blob.core.windows.net/c?sv=2022&se=2027&sig=hunter2%3D")
    program, *rest = shlex.split(ui_command("sqlite:////a b/mlflow.db"))
    assert rest == ["ui", "--backend-store-uri", "sqlite:////a b/mlflow.db"]
    assert program == str(Path(sys.executable).parent / "mlflow") and Path(program).is_file()
    assert ui_command("http://h:5000") == "open http://h:5000"
    with pytest.raises(UserError, match="system_metrics_interval_s"):
        TrackingConfig(system_metrics_interval_s=-1)


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:mlruns", "file:./mlruns"])
def test_a_relative_folder_is_made_absolute(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_tracking_uri(TrackingConfig(uri=uri)) == f"file://{tmp_path}/mlruns"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="in a submitted job"):
        resolve_tracking_uri(TrackingConfig(uri=uri))


@pytest.mark.parametrize("uri", ["/data/mlruns", "file:///data/mlruns", "postgresql://h/db", "http://h", "databricks"])
def test_what_is_absolute_or_remote_stays(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert resolve_tracking_uri(TrackingConfig(uri=uri)) == uri


def test_a_submitted_job_needs_a_place_that_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match=r"tracking\.uri: got sqlite:///runs/mlflow\.db in a submitted job"):
        resolve_tracking_uri(TrackingConfig())
    absolute = f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri(TrackingConfig(uri=absolute)) == absolute


def test_a_full_disk_under_the_artifacts_is_the_users_to_mend(
    config: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/mlartifacts/report.html")

    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    with (
        pytest.raises(UserError, match=r"MLflow tracking: got .*No space left.*mlartifacts/report\.html"),
        tracking_errors(tracker.uri),
    ):
        tracker.log_file("report.html")


@pytest.mark.parametrize(
    ("error", "status"), [(OSError("disk"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")]
)
def test_an_error_within_the_block_ends_the_run_and_is_told(
    config: TrackingConfig, tmp_path: Path, error: BaseException, status: str
) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    with pytest.raises(type(error)) as caught, tracker.finished_on_error():
        raise error
    assert caught.value is error
    assert MlflowClient(config.uri).get_run(tracker.run_id).info.status == status


def test_a_block_without_error_leaves_the_run_open(config: TrackingConfig, tmp_path: Path) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))
    with tracker.finished_on_error():
        pass
    assert MlflowClient(config.uri).get_run(tracker.run_id).info.status == "RUNNING"


def test_a_server_that_is_gone_does_not_hide_the_first_error(
    config: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_run(config, str(tmp_path / "run.json"))

    def gone(status: str) -> None:
        raise OSError("no server")

    monkeypatch.setattr(tracker, "finish", gone)
    with pytest.raises(ValueError, match="first"), tracker.finished_on_error():
        raise ValueError("first")
