"""Runs a grid of trainings and their evaluations over several seeds, side by side on one cluster, tracked in MLflow.

    python -m jobs.sweep --config jobs/configs/sweep_ablations.yaml overrides.store_uri=/my/store output_uri=/my/sweep

Killed or interrupted, the same command continues: finished trials are not run again, the others go on from their last
checkpoint. A trial that fails leaves the others alone; the exit code is 1 if one did.
"""

from infra import storage
from infra.tracking import ui_command
from jobs.entry import run_job
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import CSV_FILE, SweepReport, run_sweep
from pipelines.sweep.table import text_table


def job(config: SweepConfig) -> int:
    """Sweep, print the table, and return 1 unless every trial finished."""
    report = run_sweep(config)
    print(report_text(report))
    return 1 if report.failures or report.not_started else 0


def report_text(report: SweepReport) -> str:
    """Return the job's final report."""
    missing = len(report.failures) + len(report.not_started)
    before = f", {report.num_known} of them before" if report.num_known else ""
    lines = [
        "",
        text_table(report.rows),
        "",
        f"trials       {report.num_trials - missing} of {report.num_trials} finished{before}",
        *(f"failed       {name}: {reason}" for name, reason in report.failures.items()),
        *(f"not started  {name}" for name in report.not_started),
        f"table        {storage.join(report.output_uri, CSV_FILE)}",
        f"MLflow run   {report.run_id}",
        f"open MLflow  {ui_command(report.tracking_uri)}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_job("sweep", __doc__, SweepConfig, job)
