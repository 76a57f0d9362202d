"""Where an evaluation and a training's curves stand in an MLflow run; reading them needs no model."""

from collections.abc import Mapping, Sequence

from mlflow.tracking import MlflowClient

from pipelines.evaluation.plots import Curves

METRICS_FILE = "metrics.json"
FORMAT_VERSION = 1
"""Of metrics.json."""

PANELS: Mapping[str, Sequence[str]] = {
    # A run has those of its system: HierarchicalVLM and the baselines one loss, HierVL one of each level.
    "loss": ("train/loss/total", "train/loss/child/total", "train/loss/parent/total", "dev/loss/total"),
    "dev retrieval": (
        "dev/video/text_to_video/recall_at_1",
        "dev/video/video_to_text/recall_at_1",
        "dev/clip/text_to_video/recall_at_1",
        "dev/clip/video_to_text/recall_at_1",
    ),
    "gradient norm": ("train/grad_norm",),
    "learning rate": ("train/lr",),
}
"""Panels of a report: title -> the metrics that are drawn when the run has them."""


def evaluation_folder(step: int, mark: str) -> str:
    """Return the folder of an evaluation's files, in the training's output and in the run.

    Args:
        step: of the checkpoint.
        mark: `store-…` for another store than the training's, empty for that.
    """
    return "/".join(part for part in ("evaluation", f"step-{step:09d}", mark) if part)


def evaluation_tag(name: str, mark: str) -> str:
    """Return the tag of the run that says something about its last evaluation: report, step or store."""
    return f"evaluation.{mark}.{name}" if mark else f"evaluation.{name}"


def metric_name(name: str, mark: str) -> str:
    """Return the name of an evaluation's metric in the run."""
    return f"{mark}/{name}" if mark else name


def samples_file(split: str) -> str:
    """Return the name of the file with a row per sample of a split."""
    return f"samples_{split}.parquet"


def read_curves(client: MlflowClient, run_id: str, panels: Mapping[str, Sequence[str]]) -> dict[str, Curves]:
    """Return `{panel: {metric: (steps, values)}}` in the order of the steps; a panel is empty without its metrics."""
    existing = client.get_run(run_id).data.metrics
    read: dict[str, Curves] = {}
    for title, names in panels.items():
        curves = {}
        for name in (name for name in names if name in existing):
            history = sorted(client.get_metric_history(run_id, name), key=lambda metric: metric.step)
            curves[name] = [metric.step for metric in history], [metric.value for metric in history]
        read[title] = curves
    return read
