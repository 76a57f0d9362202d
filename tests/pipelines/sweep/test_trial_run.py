"""What of a trial is done, and what is not done again; training and evaluation are replaced."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvlm.errors import JobError
from infra.config_io import build_config
from pipelines.evaluation.metric_table import MetricRow
from pipelines.sweep import trial_run
from pipelines.sweep.trial_run import TrialResult, dev_metrics, finished_result, run_trial
from pipelines.sweep.trials import Trial
from pipelines.training.loop import TrainOutcome
from tests.pipelines.sweep.world import trials


class Parts:
    """Counts trainings and evaluations; `step` is the checkpoint that a training ends at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.evaluated: list[str] = []
        self.step, self.stopped = 20, None
        monkeypatch.setattr(trial_run, "run_training", self.train)
        monkeypatch.setattr(trial_run, "evaluate", self.evaluate)
        monkeypatch.setattr(trial_run, "find_checkpoint", lambda uri, which: SimpleNamespace(uri=f"{uri}/{self.step}"))

    def train(self, config: Any) -> Any:
        self.trained.append(config.output_uri)
        metrics = {"dev/loss/total": 2.0, "dev/hidden/contrast_gap": 0.1, "train/loss/total": 1.0, "dev/other": 1.0}
        outcome = TrainOutcome(step=20, metrics=metrics, checkpoint_uri="latest", best_uri="best", stopped=self.stopped)
        return SimpleNamespace(outcome=outcome, job=SimpleNamespace(run_id="run"))

    def evaluate(self, config: Any) -> Any:
        self.evaluated.append(config.checkpoint)
        rows = [
            MetricRow(name="val/video/a", ours=0.5, raw=0.25, headline=True),
            MetricRow(name="val/video/b", ours=1.0),
        ]
        return SimpleNamespace(rows=rows, output_uri=f"{config.checkpoint}/evaluation")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return trials(tmp_path, "full")[0]


def test_a_finished_trial_is_known_by_its_record(parts: Parts, trial: Trial) -> None:
    assert finished_result(trial) is None
    result = run_trial(trial)
    assert [row["name"] for row in result.metrics] == ["val/video/a"], "headline metrics alone"
    assert result.run_id == "run" and result.checkpoint_uri == f"{trial.output_uri}/20"
    assert result.report_uri == f"{trial.output_uri}/evaluation/report.html"
    assert finished_result(trial) == result


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_another_configuration_is_not_finished(parts: Parts, trial: Trial, part: str) -> None:
    run_trial(trial)
    changes: dict[str, dict[str, Any]] = {"training": {"epochs": 7}, "evaluation": {"knn_k": 7}}
    assert finished_result(replace(trial, **{part: replace(getattr(trial, part), **changes[part])})) is None
    other = replace(trial.training, resources=replace(trial.training.resources, max_failures=9))
    assert finished_result(replace(trial, training=other)) is not None, "where it runs means nothing"


def test_an_evaluation_of_the_same_checkpoint_is_not_repeated(parts: Parts, trial: Trial) -> None:
    first = run_trial(trial)
    again = run_trial(replace(trial, training=replace(trial.training, log_every_steps=7)))
    assert len(parts.trained) == 2 and len(parts.evaluated) == 1 and again.metrics == first.metrics
    assert trial.evaluation is not None
    run_trial(replace(trial, evaluation=replace(trial.evaluation, knn_k=7)))
    assert len(parts.evaluated) == 2
    parts.step = 30
    run_trial(replace(trial, evaluation=replace(trial.evaluation, knn_k=7)))
    assert len(parts.evaluated) == 3


def test_a_training_that_an_alarm_stopped_is_no_result(parts: Parts, trial: Trial) -> None:
    parts.stopped = "unit_std below 0.1"  # type: ignore[assignment]
    with pytest.raises(JobError, match=r"an alarm stopped the training: unit_std below 0\.1"):
        run_trial(trial)
    assert finished_result(trial) is None and parts.evaluated == []


def test_without_evaluation_the_dev_metrics_count(parts: Parts, trial: Trial) -> None:
    alone = replace(trial, evaluation=None)
    result = run_trial(alone)
    assert [(row["name"], row["ours"], row["better"]) for row in result.metrics] == [
        ("dev/hidden/contrast_gap", 0.1, "higher"),
        ("dev/loss/total", 2.0, "lower"),
    ]
    assert result.report_uri is None and result.checkpoint_uri == "best" and parts.evaluated == []
    assert finished_result(alone) == result and finished_result(trial) is None
    assert dev_metrics({}) == []


def test_the_record_is_plain_and_holds_no_address_of_a_server(parts: Parts, trial: Trial) -> None:
    secret = replace(trial.training.tracking, uri="http://user:word@host")
    run_trial(replace(trial, training=replace(trial.training, tracking=secret)))
    text = Path(trial.output_uri, "trial.json").read_text()
    assert "word" not in text
    assert build_config(
        TrialResult, {k: v for k, v in json.loads(text).items() if k in TrialResult.__slots__}, origin="t"
    )


def test_a_record_of_another_format_counts_as_none(parts: Parts, trial: Trial) -> None:
    run_trial(trial)
    file = Path(trial.output_uri, "trial.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 0}))
    assert finished_result(trial) is None
