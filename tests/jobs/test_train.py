from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from jobs import train
from pipelines.training.config import TrainConfig
from pipelines.training.job import TrainJob
from pipelines.training.loop import TrainOutcome
from pipelines.training.trainer import TrainReport
from tests.pipelines.training.world import train_config


def make_report(tmp_path: Path, resumed_step: int = 0, stopped: str | None = None) -> TrainReport:
    job = TrainJob(
        config=train_config("/store", tmp_path / "out"),
        store_version=1,
        manifest_hash="m",
        encoders=(("clip", "f"),),
        d_in=(8,),
        d_text=8,
        text_uri=None,
        steps_per_epoch=10,
        total_steps=40,
        run_id="abc123",
        tracking_uri="sqlite:////data/mlflow.db",
        git_commit="c",
    )
    metrics = {
        "train/loss/total": 1.5,
        "dev/loss/total": 2.0,
        "dev/video/text_to_video/recall_at_1": 0.5,
        "dev/hidden/contrast_gap": 0.4,
        "dev/hidden/cosine_same_video": 0.1,
        "train/samples_per_s": 321.0,
    }
    outcome = TrainOutcome(step=40, metrics=metrics, checkpoint_uri="/out/c", best_uri="/out/b", stopped=stopped)
    return TrainReport(job=job, outcome=outcome, resumed_step=resumed_step, duration_s=12.0)


def test_the_report_names_run_steps_losses_checkpoint_and_mlflow(tmp_path: Path) -> None:
    text = train.report_text(make_report(tmp_path, resumed_step=20))
    for part in (
        "40 of 40, continued at 20, in 12 s",
        "total 1.5",
        "total 2",
        "recall_at_1 0.5",
        "contrast_gap 0.4",
        "samples_per_s 321",
        "/out/c",
        "/out/b",
        "abc123",
        "mlflow ui --backend-store-uri sqlite:////data/mlflow.db",
    ):
        assert part in text
    assert "cosine_same_video" not in text
    assert "nothing to do" in train.report_text(make_report(tmp_path, resumed_step=40))


@pytest.mark.parametrize(("stopped", "code"), [(None, 0), ("the loss is nan", 1)])
def test_an_alarm_that_stops_the_run_is_exit_code_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stopped: str | None,
    code: int,
) -> None:
    monkeypatch.setattr(train, "run_training", lambda config: make_report(tmp_path, stopped=stopped))
    assert train.job(train_config("/store", tmp_path / "out")) == code
    assert ("stopped      the loss is nan" in capsys.readouterr().out) == bool(stopped)


def test_a_submitted_job_needs_absolute_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    def never(config: TrainConfig) -> Any:
        raise AssertionError("the job must not start")

    monkeypatch.setattr(train, "run_training", never)
    with pytest.raises(UserError, match="store_uri: got the relative path 'store' in a submitted job"):
        train.job(train_config("store", tmp_path / "out"))
