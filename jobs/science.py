"""Trains HierVL and its controls on planted worlds whose order only the summary tells, and judges them by gates.

    python -m jobs.science --config jobs/configs/science.yaml
    python -m jobs.science --config jobs/configs/science.yaml output_path=/data/science seeds=[0,1]

Killed or interrupted, the same command continues. The exit code is 1 if a gate does not hold.
"""

import shlex
import sys

from infra.tracking import ui_command
from jobs.entry import run_job
from pipelines.science.config import ScienceConfig
from pipelines.science.page import text_tables
from pipelines.science.run import ScienceReport, run_science


def job(config: ScienceConfig) -> int:
    """Run the benchmark, print the tables, and return 1 unless every gate holds."""
    report = run_science(config, shlex.join(["python", "-m", "jobs.science", *sys.argv[1:]]))
    print(report_text(report))
    return 1 if report.failed else 0


def report_text(report: ScienceReport) -> str:
    """Return the job's final report."""
    held = len(report.gates) - len(report.failed)
    return "\n".join(
        [
            "",
            text_tables(report.gates, report.runs, report.chance),
            "",
            f"gates       {held} of {len(report.gates)} hold",
            f"page        {report.page_path}",
            f"MLflow run  {report.run_id}",
            f"MLflow UI   {ui_command(report.tracking_uri)}",
            f"took        {report.duration_s / 60:.1f} min",
        ]
    )


if __name__ == "__main__":
    run_job("science", __doc__, ScienceConfig, job)
