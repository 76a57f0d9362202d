"""The evaluation in MLflow: metrics and files in the training's run, so that runs compare in the UI; its curves."""

from collections.abc import Mapping

from mlflow.tracking import MlflowClient

from infra import scratch, storage
from infra.tracking import RunTracker, TrackingConfig, open_run, resolve_tracking_uri
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.plots import Curves
from pipelines.evaluation.run_layout import PANELS, evaluation_tag, metric_name, read_curves


def training_curves(tracking: TrackingConfig, run_id: str | None) -> dict[str, Curves]:
    """Return the training's curves by panel; empty without a run, a panel is empty without its metrics."""
    if run_id is None:
        return {}
    return read_curves(MlflowClient(resolve_tracking_uri(tracking)), run_id, PANELS)


def log_evaluation(
    inputs: EvaluationInputs, metrics: Mapping[str, float], files: Mapping[str, bytes], output_uri: str
) -> RunTracker:
    """Log metrics at the checkpoint's step and all files under `evaluation/step-…`; return the run's tracker.

    On another store than the training's, metrics, tags and files carry `inputs.mark`, so that they replace nothing.

    Where the training's run is not on this server, a new run is made once per output and linked to checkpoint and
    training.
    """
    step = inputs.checkpoint.step
    run_id = inputs.run_id
    if run_id is None:
        own = open_run(inputs.tracking, storage.join(output_uri, "mlflow_run.json"))
        own.set_tags({"evaluation.checkpoint": inputs.checkpoint.uri, "evaluation.training_run": inputs.info.run_id})
        run_id = own.run_id
    # Never `resumed`: evaluating a step again replaces its values instead of keeping the older ones.
    tracker = RunTracker(resolve_tracking_uri(inputs.tracking), run_id)
    tracker.log_metrics({metric_name(name, inputs.mark): value for name, value in metrics.items()}, step)
    tags = {"report": storage.join(output_uri, "report.html"), "step": step, "store": inputs.manifest.store_uri}
    tracker.set_tags({evaluation_tag(name, inputs.mark): value for name, value in tags.items()})
    with scratch.folder() as temporary:
        for name, content in files.items():
            path = temporary / name
            path.write_bytes(content)
            tracker.log_file(str(path), inputs.folder)
    tracker.flush()
    if inputs.run_id is None:
        tracker.finish("FINISHED")
    return tracker
