"""Renders the planted world: small real videos with known actions, captions and activities, and three broken files.

    python -m jobs.render --config jobs/configs/render_demo.yaml
    python -m jobs.render --config jobs/configs/render_demo.yaml output_path=/data/world world.num_videos=400

A folder that already holds this world is left as it is. An interrupted run goes on where it stopped.
"""

import time

from hvlm.synthetic.dataset import RenderConfig, RenderReport, render_world
from infra.cluster import reject_relative_paths_in_job
from jobs.entry import run_job


def job(config: RenderConfig) -> int:
    """Render what is missing and print the report."""
    reject_relative_paths_in_job({"output_path": config.output_path})
    started = time.monotonic()
    report = render_world(config)
    print(report_text(report, time.monotonic() - started))
    return 0


def report_text(report: RenderReport, duration_s: float) -> str:
    """Return the job's final report."""
    if report.num_rendered:
        done = f"rendered     {report.num_rendered} files in {duration_s:.0f} s, {report.num_kept} were already there"
    else:
        done = f"nothing to do: all {report.num_kept} files of this world are already there"
    return "\n".join(
        [
            "planted world",
            done,
            f"videos       {report.num_videos}, {report.video_s / 60:.1f} minutes, {report.num_activities} activities",
            f"bad files    {report.num_bad_files} on purpose, to see quarantine at work",
            f"size         {report.size_bytes / 1e6:.1f} MB",
            f"folder       {report.folder / 'videos'}",
            f"annotations  {report.folder / 'annotations.json'}",
        ]
    )


if __name__ == "__main__":
    run_job("render", __doc__, RenderConfig, job)
