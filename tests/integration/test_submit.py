"""The four jobs of the demo through `ray job submit` on a real head; the job's exit code is the truth."""

import json
import urllib.error

import polars as pl
import pytest

from pipelines.store.catalog import FeatureStore
from tests.integration.mlflow_server import running_server
from tests.integration.ray_head import COMMIT, running_head

pytestmark = pytest.mark.slow

EXTRACT = "jobs/configs/extract_smoke.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("submitted")


@pytest.fixture(scope="module")
def head(repository):
    with running_head(repository) as running:
        yield running


@pytest.fixture(scope="module")
def server(folder):
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def chain(head, folder, server):
    """The four jobs, one after the other; everything they write has an absolute path, MLflow is a server."""
    store, tracking = f"store_uri={folder}/store", f"tracking.uri={server.uri}"
    steps = {
        "render": [f"output_path={folder}"],
        "extract": [store, f"source.uri={folder}/videos", f"source.annotations_uri={folder}/annotations.json"],
        "train": [store, f"output_uri={folder}/training", tracking],
        "evaluate": [store, f"checkpoint={folder}/training", f"output_uri={folder}/evaluation", tracking],
    }
    outputs = {}
    for job, overrides in steps.items():
        command = ["python", "-m", f"jobs.{job}", "--config", f"jobs/configs/{job}_smoke.yaml", *overrides]
        done = head.submit(job, *command)
        assert done.returncode == 0, f"{job}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        outputs[job] = done.stdout
    return outputs


@pytest.mark.parametrize("job", ["render", "extract", "train", "evaluate"])
def test_the_job_succeeded(chain, head, job):
    assert head.job(job)["status"] == "SUCCEEDED"


def test_extraction_left_a_whole_store(chain, head, folder):
    live = FeatureStore.open(str(folder / "store")).samples().filter(pl.col("state") == "live")
    assert set(live["encoder"]) == {"clip", "c3d"}
    assert live.filter(pl.col("encoder") == "clip")["video_id"].n_unique() == 16
    verify = ["python", "-m", "jobs.verify", "--config", "jobs/configs/verify.yaml", f"store_uri={folder}/store"]
    done = head.submit("verify", *verify)
    assert "every sample is as it was written" in done.stdout
    assert head.job("verify")["status"] == "SUCCEEDED"


def test_the_report_is_written_and_stands_in_the_trainings_run(chain, folder, server):
    report = (folder / "evaluation" / "report.html").read_bytes()
    assert json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    (run,) = server.runs("smoke")
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "mlflow.source.git.commit", "value": COMMIT} in run["data"]["tags"]
    assert any(metric["key"].startswith("train/loss/") for metric in run["data"]["metrics"])
    assert any(metric["key"].startswith("val/") for metric in run["data"]["metrics"])
    (step,) = {metric["step"] for metric in run["data"]["metrics"] if metric["key"].startswith("val/")}
    assert server.artifact(run["info"]["run_id"], f"evaluation/step-{int(step):09d}/report.html") == report


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("missing-source", ["store_uri={folder}/other", "source.uri={folder}/nowhere"], "nowhere"),
        ("lost-output", ["store_uri=runs/store", "source.uri={folder}/videos"], "in a submitted job"),
        (
            "too-much",
            [
                "store_uri={folder}/big",
                "source.uri={folder}/videos",
                "source.annotations_uri=null",
                "resources.decode_num_cpus=64",
            ],
            "a need of 64 CPU",
        ),
    ],
)
def test_a_job_that_cannot_work_has_failed(chain, head, folder, name, overrides, message):
    done = head.submit(
        name, "python", "-m", "jobs.extract", "--config", EXTRACT, *[o.format(folder=folder) for o in overrides]
    )
    assert done.returncode != 0
    assert message in done.stdout
    state = head.job(name)
    assert (state["status"], state["driver_exit_code"]) == ("FAILED", 2)


def test_without_the_token_nobody_submits(head):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        head.get("/api/jobs/", None)
    assert refusal.value.code == 401
