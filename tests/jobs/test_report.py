"""What the job prints: the table, what is not comparable, and the page that it made by which command."""

import shlex
import sys

from hvlm.metrics.comparison import SeedSpread
from infra.tracking import TrackingConfig
from jobs import report
from jobs.report import comparison_report
from pipelines.reporting.build import ReportOutcome
from pipelines.reporting.checks import Mismatch
from pipelines.reporting.comparison import Cell, MetricComparison
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.page import Comparison
from pipelines.reporting.runs import UnevaluatedRun


def _outcome():
    cell = Cell(SeedSpread(0.5, 0.125, 3), (("r0", "0", 0.5),), None, "", 0.0)
    metric = MetricComparison("val/x", "higher", "4 videos", (), {"ours": cell}, {})
    found = Comparison(
        [], [metric], [Mismatch("r1", "ours", "other samples")], [UnevaluatedRun("r2", "n", "FAILED", "no")]
    )
    return ReportOutcome(found, "/out/comparison.html", "abc", "sqlite:////runs/mlflow.db")


def test_report_names_figures_troubles_and_places():
    text = comparison_report(_outcome())
    assert "0.500 ± 0.125    n=3  ours" in text
    assert "NOT COMPARABLE  ours, run r1: other samples" in text and "no evaluation  r2 n: no" in text
    assert "/out/comparison.html" in text and "mlflow ui --backend-store-uri sqlite:////runs/mlflow.db" in text


def test_the_page_gets_the_command_as_it_can_be_typed_again(monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(report, "build_report", lambda config, command: commands.append(command) or _outcome())
    arguments = ["--config", "jobs/configs/report.yaml", "filter=tags.sweep = 'a'"]
    monkeypatch.setattr(sys, "argv", ["jobs/report.py", *arguments])
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # what the job sets must not outlive the test
    assert report.job(ReportConfig(output_uri="out", experiment="e", tracking=TrackingConfig())) == 0
    assert shlex.split(commands[0]) == ["python", "-m", "jobs.report", *arguments]
    assert "abc" in capsys.readouterr().out
