"""Runs in, one comparison page out: methods beside each other with spread, intervals, figures and provenance.

    python -m jobs.report --config jobs/configs/report.yaml
    python -m jobs.report --config jobs/configs/report.yaml filter='tags."sweep.id" = "<run>"' baseline=flat
    python -m jobs.report --config jobs/configs/report.yaml run_ids=[<run>,<run>] experiment=null on_mismatch=flag

Every figure comes from the runs in MLflow and from the files that jobs.evaluate logged there.
"""

import os
import shlex
import sys

from infra.tracking import ui_command
from jobs.entry import run_job
from pipelines.reporting.build import ReportOutcome, build_report
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.page import mean_and_std


def job(config: ReportConfig) -> int:
    """Make the page and print its table."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # two bars for every small file
    print(comparison_report(build_report(config, shlex.join(["python", "-m", "jobs.report", *sys.argv[1:]]))))
    return 0


def comparison_report(outcome: ReportOutcome) -> str:
    """Return what the job prints at its end."""
    found = outcome.found
    lines = [""]
    for metric in found.metrics:
        lines += [metric.name]
        lines += [f"  {mean_and_std(cell):<16} n={cell.spread.num_runs}  {name}" for name, cell in metric.cells.items()]
    lines += [f"NOT COMPARABLE  {item.method}, run {item.run_id}: {item.message}" for item in found.mismatches]
    lines += [f"no evaluation  {run.run_id} {run.name}: {run.why}" for run in found.without]
    return "\n".join(
        [
            *lines,
            "",
            f"page        {outcome.page_uri}",
            f"MLflow run  {outcome.run_id}",
            f"MLflow UI   {ui_command(outcome.tracking_uri)}",
        ]
    )


if __name__ == "__main__":
    run_job("report", __doc__, ReportConfig, job)
