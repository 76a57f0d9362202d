"""MLflow: values of a step are replaced, a foreign training gets a linked run of its own, curves come back in order."""

from dataclasses import replace

from mlflow.tracking import MlflowClient

from infra.tracking import TrackingConfig
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.inputs import open_inputs
from pipelines.evaluation.run_log import log_evaluation, training_curves


def test_curves_are_those_of_the_training(planted):
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    panels = training_curves(inputs.tracking, inputs.run_id)
    assert panels["loss"] == {"train/loss/total": ([1, 2], [1.0, 0.5])}
    assert panels["learning rate"] == {}
    assert training_curves(inputs.tracking, None) == {}


def test_a_foreign_training_gets_one_linked_run(planted, tmp_path):
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="evaluation")
    inputs = replace(open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1])), tracking=tracking, run_id=None)
    output = str(tmp_path / "output")
    first = log_evaluation(inputs, {"val/x": 0.25}, {"metrics.json": b"{}"}, output)
    second = log_evaluation(inputs, {"val/x": 0.75}, {"metrics.json": b"{}"}, output)
    assert first.run_id == second.run_id
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["evaluation.training_run"] == inputs.info.run_id
    assert [file.path for file in client.list_artifacts(first.run_id, "evaluation/step-000000002")] == [
        "evaluation/step-000000002/metrics.json"
    ]
    assert run.data.metrics["val/x"] == 0.75


def test_evaluating_a_step_again_replaces_its_values(planted):
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    for value in (0.25, 0.75):
        log_evaluation(inputs, {"val/again": value}, {}, "out")
    run = MlflowClient(f"sqlite:///{planted[1]}/mlflow.db").get_run(inputs.run_id)
    assert run.data.metrics["val/again"] == 0.75


def test_another_store_replaces_nothing_of_the_trainings_own(planted):
    own = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    other = replace(own, num_excluded=3)
    log_evaluation(own, {"val/own": 0.25}, {"metrics.json": b"{}"}, "own")
    log_evaluation(other, {"val/own": 0.75}, {"metrics.json": b"{}"}, "other")
    client = MlflowClient(f"sqlite:///{planted[1]}/mlflow.db")
    run = client.get_run(own.run_id)
    assert (run.data.metrics["val/own"], run.data.metrics[f"{other.mark}/val/own"]) == (0.25, 0.75)
    assert run.data.tags["evaluation.report"] == "own/report.html"
    assert run.data.tags[f"evaluation.{other.mark}.store"] == planted[0]
    files = [file.path for file in client.list_artifacts(own.run_id, other.folder)]
    assert files == [f"{own.folder}/{other.mark}/metrics.json"]
