"""Tracking on a real `mlflow server`: what was logged is read back over HTTP, after a restart too."""

import json

import pytest

from infra.tracking import DatasetReference, TrackingConfig, open_run
from tests.integration.mlflow_server import running_server

pytestmark = pytest.mark.slow

EXPERIMENT = "over-http"
DATASET = DatasetReference(
    name="store", store_uri="s3://bucket/store", version=7, manifest_hash="ab" * 32, num_samples=48
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    """One training that is interrupted after step 2 and continued to step 3 by another process's tracker."""
    folder = tmp_path_factory.mktemp("training")
    report = folder / "report.html"
    report.write_text("<h1>report</h1>", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        config = TrackingConfig(uri="sqlite:////nowhere/mlflow.db", experiment=EXPERIMENT, run_name="first")
        tracker = open_run(config, f"{folder}/run.json")
        tracker.log_config({"seed": 0, "model.encoder": "tiny"}, {"seed": 0, "model": {"encoder": "tiny"}})
        tracker.log_dataset(DATASET)
        for step in (1, 2):
            tracker.log_metrics({"train/loss/total": 1.0 / step}, step)
        tracker.close()
        again = open_run(config, f"{folder}/run.json")
        for step in (2, 3):
            again.log_metrics({"train/loss/total": 1.0 / step}, step)
        again.log_checkpoint(3, f"{folder}/step-3", {"dev/loss": 0.5}, best=True)
        again.log_file(str(report), "evaluation")
        again.finish("FINISHED")
    (found,) = server.runs(EXPERIMENT)
    return found


def named(items):
    return {item["key"]: item["value"] for item in items}


def test_a_restart_goes_on_in_the_same_run(run, server):
    assert run["info"]["run_name"] == "first"
    assert run["info"]["status"] == "FINISHED"
    history = server.get(f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=train/loss/total")["metrics"]
    assert [(metric["step"], metric["value"]) for metric in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_parameters_and_configuration_are_there(run, server):
    assert named(run["data"]["params"]) == {"seed": "0", "model.encoder": "tiny"}
    config = json.loads(server.artifact(run["info"]["run_id"], "config.json"))
    assert config == {"seed": 0, "model": {"encoder": "tiny"}}


def test_the_store_is_the_runs_dataset(run):
    (dataset,) = [item["dataset"] for item in run["inputs"]["dataset_inputs"]]
    assert json.loads(dataset["source"]) == {"uri": "s3://bucket/store", "version": 7, "manifest_hash": "ab" * 32}
    assert named(run["data"]["tags"])["store.version"] == "7"


def test_checkpoints_stand_by_reference_and_files_as_files(run, server):
    run_id = run["info"]["run_id"]
    checkpoint = json.loads(server.artifact(run_id, "checkpoints/step-000000003.json"))
    assert (checkpoint["step"], checkpoint["uri"]) == (3, named(run["data"]["tags"])["checkpoint.best"])
    assert server.artifact(run_id, "evaluation/report.html") == b"<h1>report</h1>"
