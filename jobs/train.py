"""Trains a HierarchicalVLM or a HierVL on the features of a store, with Ray Train, tracked in MLflow.

    python -m jobs.train --config jobs/configs/train_demo.yaml store_uri=/my/store output_uri=/my/training

Killed or interrupted, the same command continues from the last checkpoint. Run again when finished, it does nothing and
says so.
"""

from infra.cluster import reject_relative_paths_in_job
from infra.tracking import ui_command
from jobs.entry import run_job
from pipelines.training.config import TrainConfig
from pipelines.training.registry import TRAIN_CONFIG
from pipelines.training.trainer import TrainReport, run_training


def job(config: TrainConfig) -> int:
    """Train, print the report, and return 1 if an alarm stopped the training."""
    reject_relative_paths_in_job({"store_uri": config.store_uri, "output_uri": config.output_uri})
    report = run_training(config)
    print(report_text(report))
    return 1 if report.outcome.stopped else 0


def report_text(report: TrainReport) -> str:
    """Return the job's final report."""
    outcome, training = report.outcome, report.job
    metrics = outcome.metrics
    if report.resumed_step == training.total_steps:
        done = f"nothing to do: this training finished at step {outcome.step}"
    else:
        since = f", continued at {report.resumed_step}" if report.resumed_step else ""
        done = f"steps        {outcome.step} of {training.total_steps}{since}, in {report.duration_s:.0f} s"
    lines = [
        f"stopped      {outcome.stopped}" if outcome.stopped else "training finished",
        done,
        _listed("train loss", metrics, "train/loss/"),
        _listed("dev loss", metrics, "dev/loss/"),
        _listed("dev", {key: value for key, value in metrics.items() if _is_headline(key)}, "dev/"),
        _listed("speed", {key: metrics[key] for key in _SPEED if key in metrics}, "train/"),
        f"checkpoint   {outcome.checkpoint_uri}",
        f"best         {outcome.best_uri}",
        f"MLflow run   {training.run_id}",
        f"open MLflow  {ui_command(training.tracking_uri)}",
    ]
    return "\n".join(line for line in lines if line)


_SPEED = ("train/samples_per_s", "train/frames_per_s", "train/data_wait_share", "train/padding_share")


def _is_headline(key: str) -> bool:
    named = "recall" in key or "hit_at_1" in key or "mcq/accuracy" in key
    return named or key.endswith(("contrast_gap", "unit_std", "effective_rank"))


def _listed(title: str, metrics: dict[str, float], prefix: str) -> str:
    shown = [
        f"{key.removeprefix(prefix)} {value:.4g}" for key, value in sorted(metrics.items()) if key.startswith(prefix)
    ]
    return f"{title:<12} {', '.join(shown)}" if shown else ""


if __name__ == "__main__":
    run_job("train", __doc__, TRAIN_CONFIG, job)
