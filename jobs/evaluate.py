"""Checkpoint in, report out: embed the store's videos, measure, write the report, log it to the training's MLflow run.

    python -m jobs.evaluate --config jobs/configs/evaluate_demo.yaml
    python -m jobs.evaluate --config jobs/configs/evaluate_demo.yaml checkpoint=null run_id=<MLflow run>

Every metric stands beside the raw features on the same protocol, and chance. The YAML's `system` says what was trained:
HierarchicalVLM or HierVL (`jobs/configs/evaluate_hiervl_smoke.yaml`).
"""

from infra import storage
from infra.tracking import ui_command
from jobs.entry import run_job
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.metric_table import text_table
from pipelines.evaluation.registry import EVALUATE_CONFIG
from pipelines.evaluation.run import EvaluationOutcome, evaluate


def job(config: EvaluateConfig) -> int:
    """Evaluate and print the short table."""
    print(evaluation_report(evaluate(config)))
    return 0


def evaluation_report(outcome: EvaluationOutcome) -> str:
    """Return what the job prints at its end."""
    return "\n".join(
        [
            "",
            text_table(outcome.rows),
            "",
            f"report      {storage.join(outcome.output_uri, 'report.html')}",
            f"MLflow run  {outcome.run_id}",
            f"MLflow UI   {ui_command(outcome.tracking_uri)}",
            f"took        {outcome.duration_s:.0f} s",
        ]
    )


if __name__ == "__main__":
    run_job("evaluate", __doc__, EVALUATE_CONFIG, job)
