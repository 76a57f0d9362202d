"""What the job prints, and the exit code of wrong input."""

import errno
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from infra import storage
from jobs import evaluate
from jobs.entry import guarded
from jobs.evaluate import evaluation_report
from pipelines.evaluation import run
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.metric_table import MetricRow
from pipelines.evaluation.run import EvaluationOutcome
from tests.pipelines.evaluation.planted_store import make_checkpoint, make_store


def test_report_names_table_files_and_run():
    row = MetricRow(name="val/video/text_to_video/recall_at_1", ours=0.5, raw=0.25, chance=0.1, count=8, headline=True)
    text = evaluation_report(EvaluationOutcome([row], "/out", "abc", "sqlite:////runs/mlflow.db", 12.3))
    assert "0.500    0.250" in text
    assert "/out/report.html" in text
    assert "abc" in text
    assert "mlflow ui --backend-store-uri sqlite:////runs/mlflow.db" in text


def test_a_missing_checkpoint_exits_with_2_and_says_what_to_do(repository, tmp_path):
    command = [
        sys.executable,
        "-m",
        "jobs.evaluate",
        "--config",
        "jobs/configs/evaluate_smoke.yaml",
        f"checkpoint={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=120, check=False)
    assert done.returncode == 2
    assert "complete checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    make_checkpoint(make_store(root / "store", 16), root / "training")
    return str(root / "training")


@pytest.fixture
def config(ray_cluster, training, tmp_path, monkeypatch):
    """An evaluation that measures nothing: what happens to its files is looked at."""
    monkeypatch.setattr(run, "connect", lambda config: nullcontext())
    monkeypatch.setattr(run, "require_resources", lambda *_, **__: None)
    monkeypatch.setattr(run, "open_evaluated", lambda *_: SimpleNamespace(facts={}, measure=list))
    return HierarchicalVLMEvaluateConfig(checkpoint=training, output_uri=str(tmp_path / "out"))


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _gone(*_, **__):
    raise MlflowException("the server is gone")


def test_a_full_disk_under_the_report_is_the_users_to_mend(config, monkeypatch, capsys):
    monkeypatch.setattr(storage, "_fill", _full)
    assert guarded(lambda: evaluate.job(config)) == 2
    assert "report.html: got no space left on the device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "failure", "words"),
    [
        ("log_artifact", _full, "no space left"),
        ("get_metric_history", _gone, "the server is gone"),
        ("log_batch", _gone, "the server is gone"),
    ],
)
def test_an_evaluation_outlives_mlflow(config, monkeypatch, capsys, call, failure, words):
    """Hours of measuring must not be lost to the last step."""
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, failure)
        assert guarded(lambda: evaluate.job(config)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said.lower() and f"{config.output_uri}/report.html" in said
    written = {name: storage.read_bytes(f"{config.output_uri}/{name}") for name in ("report.html", "metrics.json")}
    assert all(written.values())
    assert guarded(lambda: evaluate.job(config)) == 0
