"""A whole evaluation through Ray: files, MLflow, figures; and the same evaluation again."""

import json
from pathlib import Path

import polars as pl
import pytest
from mlflow.tracking import MlflowClient

from hvlm.metrics.linear_probe import ProbeConfig
from hvlm.metrics.localiser import LocaliserConfig
from infra.tracking import TrackingConfig
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.run import evaluate
from pipelines.evaluation.spread import EvaluateResources
from pipelines.reporting.build import build_report
from pipelines.reporting.config import ReportConfig
from tests.pipelines.evaluation.planted_store import make_checkpoint

RESOURCES = EvaluateResources(num_actors=2, videos_per_task=5)
PROBE = ProbeConfig(l2_grid=(0.01, 0.1), max_iterations=50)
LOCALISER = LocaliserConfig(num_steps=60, num_checks=2, batch_size=16, lr=5e-3)


@pytest.fixture(scope="module")
def done(planted, tmp_path_factory, ray_cluster):
    """One evaluation of the planted store, by several tests looked at."""
    training = tmp_path_factory.mktemp("training")
    make_checkpoint(planted[0], training)
    config = HierarchicalVLMEvaluateConfig(
        checkpoint=str(training), probe=PROBE, localiser=LOCALISER, resources=RESOURCES, num_timelines=1
    )
    return training, config, evaluate(config)


def test_all_files_stand_beside_the_checkpoints(done):
    training, _, outcome = done
    assert outcome.output_uri == f"{training}/evaluation/step-000000002"
    names = {path.name for path in Path(outcome.output_uri).iterdir()}
    assert names == {
        "report.html",
        "metrics.json",
        "samples_val.parquet",
        "predictions_classification_val.json",
        "predictions_localisation_val.json",
        "predictions_localisation_head_val.json",
    }


def test_metrics_have_every_group_beside_raw_and_chance(done):
    rows = {row.name: row for row in done[2].rows}
    for name in (
        "val/frame/temporal_consistency",
        "val/level_1/temporal_consistency",
        "val/video/linear_probe/labels/mean_ap",
        "val/video/linear_probe/activity/hit_at_1",
        "val/video/knn/labels/hit_at_3",
        "val/frame/localisation/average_map",
        "val/pyramid/localisation/average_map",
        "val/video/text_to_video/recall_at_1",
        "val/clip/video_to_text/median_rank",
    ):
        assert rows[name].ours is not None, name
        assert rows[name].raw is not None, name
    # the rows separate the actions, a mean over them the pairs of actions, and never their order
    assert rows["val/video/linear_probe/labels/mean_ap"].raw > 0.95
    assert rows["val/video/linear_probe/activity/hit_at_1"].raw < 0.85
    localisation = rows["val/frame/localisation/average_map"]
    assert localisation.raw > 0.5 > localisation.floor >= 0
    assert localisation.chance < 0.1
    assert localisation.count == 24
    by_head = rows["val/pyramid/localisation/average_map"]
    assert by_head.raw > 0.3 > by_head.floor == localisation.floor
    assert by_head.chance == localisation.chance


def test_metrics_json_says_where_everything_comes_from(done):
    outcome = done[2]
    content = json.loads(Path(outcome.output_uri, "metrics.json").read_text())
    assert content["run_id"] == outcome.run_id
    assert content["splits"] == {"val": 12}
    assert content["checkpoint"]["step"] == 2
    assert content["store"]["encoders"].keys() == {"clip", "c3d"}
    for method in ("localisation", "localisation_head"):
        assert set(content["per_class_ap"]["val"][method]["ours"]) == {"bounce", "spin", "slide", "blink"}
    assert content["localisation_head"]["val"]["raw"]["dev_average_map"].keys() == {"30", "60"}
    assert all(row["count"] > 0 for row in content["metrics"])
    assert {row["group"] for row in content["metrics"]} == {
        "consistency",
        "classification",
        "localisation",
        "retrieval",
    }
    assert content["raw_retrieval_is_chance"]  # the planted store's CLIP has random weights
    assert content["store"]["is_training_store"]
    assert all(
        ("CLIP weights are random" in row["note"]) == (row["group"] == "retrieval") for row in content["metrics"]
    )


def test_samples_and_submission(done):
    folder = Path(done[2].output_uri)
    samples = pl.read_parquet(folder / "samples_val.parquet")
    assert samples.height == samples["key"].n_unique() == 12
    assert {"ours.text_to_video_rank", "raw.video_to_text_rank", "ours.top_labels", "raw.top_activity"} <= set(
        samples.columns
    )
    submission = json.loads((folder / "predictions_localisation_val.json").read_text())
    assert submission["version"] == "VERSION 1.3"
    assert len(submission["results"]) == 12
    first = next(iter(submission["results"].values()))[0]
    assert first.keys() == {"label", "score", "segment"}


def test_everything_is_in_the_trainings_run(done):
    training, _, outcome = done
    client = MlflowClient(f"sqlite:///{training}/mlflow.db")
    run = client.get_run(outcome.run_id)
    assert run.data.metrics["raw/val/frame/localisation/average_map"] > 0.5
    assert "val/video/text_to_video/recall_at_1" in run.data.metrics
    assert run.data.metrics["train/loss/total"] == 0.5
    files = {file.path for file in client.list_artifacts(outcome.run_id, "evaluation/step-000000002")}
    assert "evaluation/step-000000002/report.html" in files


def test_the_same_evaluation_by_run_id_gives_the_same_files(done, tmp_path):
    first = done[2]
    tracking = TrackingConfig(uri=f"sqlite:///{done[0]}/mlflow.db", experiment="test")
    again = evaluate(
        HierarchicalVLMEvaluateConfig(
            run_id=first.run_id,
            output_uri=str(tmp_path / "again"),
            probe=PROBE,
            localiser=LOCALISER,
            resources=EvaluateResources(num_actors=1, videos_per_task=48),
            num_timelines=1,
            tracking=tracking,
        )
    )
    assert again.run_id == first.run_id
    for name in ("metrics.json", "predictions_localisation_val.json", "predictions_localisation_head_val.json"):
        old, new = (json.loads(Path(place, name).read_text()) for place in (first.output_uri, again.output_uri))
        assert _rounded(old) == _rounded(new)


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def test_the_comparison_page_reads_what_was_logged(done, tmp_path):
    """Its rules for values per sample must give the evaluation's own figures, those of the model and those of raw."""
    training, _, outcome = done
    tracking = TrackingConfig(uri=f"sqlite:///{training}/mlflow.db", experiment="reports", system_metrics_interval_s=0)
    config = ReportConfig(output_uri=str(tmp_path), run_ids=(outcome.run_id,), metrics=("val/*",), tracking=tracking)
    found = build_report(config, "python -m jobs.report").found
    assert found.mismatches == []
    rows = {row.name: row for row in outcome.rows}
    compared = {metric.name: next(iter(metric.cells.values())) for metric in found.metrics}
    assert compared.keys() == rows.keys()
    for name in (
        "val/frame/temporal_consistency",
        "val/video/linear_probe/labels/hit_at_1",
        "val/video/linear_probe/activity/hit_at_1",
        "val/video/text_to_video/recall_at_1",
        "val/video/video_to_text/recall_at_10",
    ):
        assert compared[name].spread.mean == rows[name].ours
        assert compared[name].difference is not None, compared[name].why_none
        assert compared[name].difference.mean == pytest.approx(rows[name].ours - rows[name].raw)
    assert compared["val/video/linear_probe/labels/mean_ap"].difference is None
