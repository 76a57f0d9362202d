"""What the job prints, and the exit code of wrong input."""

import subprocess
import sys

from jobs.evaluate import evaluation_report
from pipelines.evaluation.metric_table import MetricRow
from pipelines.evaluation.run import EvaluationOutcome


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
