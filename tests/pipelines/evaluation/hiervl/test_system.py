"""A whole evaluation of a HierVL through Ray: every benchmark, files, MLflow, comparison page; again in one process."""

import json
from pathlib import Path

import polars as pl
import pytest
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from infra.config_io import build_config
from infra.tracking import TrackingConfig
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.hiervl import system
from pipelines.evaluation.hiervl.config import HierVLEvaluateConfig
from pipelines.evaluation.inputs import open_inputs
from pipelines.evaluation.registry import open_evaluated
from pipelines.evaluation.run import evaluate
from pipelines.reporting.build import build_report
from pipelines.reporting.config import ReportConfig
from pipelines.store.manifest import open_manifest
from tests.pipelines.evaluation.hiervl.benchmark_files import GONE, write_files


@pytest.fixture(scope="module")
def done(trained, tmp_path_factory, ray_cluster):
    """One evaluation with all files, looked at by several tests."""
    frame = open_manifest(trained[0], ["clip", "c3d"]).frame
    ids = {split: sorted(frame.filter(pl.col("split") == split)["video_id"]) for split in ("val", "train")}
    files = write_files(tmp_path_factory.mktemp("files"), ids["val"], ids["train"])
    values = {
        "checkpoint": trained[1],
        "probe": {"l2_grid": [0.01], "max_iterations": 20},
        "resources": {"num_actors": 2, "videos_per_task": 5},
        **files,
    }
    return trained, values, evaluate(build_config(HierVLEvaluateConfig, values, origin="test"))


def test_every_benchmark_is_in_the_table(done):
    rows = {row.name: row for row in done[2].rows}
    for name in (
        "val/video/text_to_video/recall_at_1",
        "val/clip/video_to_text/median_rank",
        "val/clip/caption_mcq/inter/accuracy",
        "val/video/summary_mcq/accuracy",
        "val/video/shuffle_mcq/accuracy_wrong_text",
        "val/clip/ego_mcq/inter/accuracy",
        "val/clip/ego_mcq/intra/accuracy",
        "val/video/ego_summary_mcq/accuracy",
        "val/clip/epic_mir/ndcg",
        "val/clip/epic_mir_dual_softmax/mean_ap",
        "val/video/charades/zero_shot/mean_ap",
        "val/video/charades/small_head/mean_ap",
        "val/video/linear_probe/activity/hit_at_1",
        "val/video/long_video/linear_probe/activity/hit_at_1",
        "val/clip/anticipation/edit_distance_at_2/action",
        "val/embedding_map/activity/silhouette",
    ):
        row = rows[name]
        assert row.ours is not None and row.raw is not None and row.chance is not None and row.count > 0, name
        assert row.group and row.held_out
    assert rows["val/clip/ego_mcq/inter/accuracy"].count == 1  # the other one asks for the missing video
    assert "CLIP weights are random" in rows["val/clip/epic_mir/ndcg"].note
    assert "CLIP weights are random" not in rows["val/embedding_map/activity/silhouette"].note


def test_files_and_missing_videos(done):
    folder = Path(done[2].output_uri)
    names = {path.name for path in folder.iterdir()}
    assert {
        "report.html",
        "metrics.json",
        "samples_val.parquet",
        "predictions_ego_mcq_val.json",
        "questions_ego_mcq_val.parquet",
        "submission_epic_mir_val.pkl",
    } <= names
    content = json.loads((folder / "metrics.json").read_text())
    assert content["system"] == "hiervl" and content["splits"] == {"val": 12}
    missing = content["missing_videos"]["val"]
    assert missing["ego_mcq"] == missing["epic_mir"] == missing["charades"] == missing["long_video"] == {GONE: 1}
    assert missing["anticipation"] == {GONE: 2}
    (problem,) = content["annotation_problems"]
    assert "charades.csv" in problem["where"] and problem["video_id"] == "clip-012"
    assert any(GONE in absent["why"] for absent in content["absent"])
    assert GONE in (folder / "report.html").read_text()
    samples = pl.read_parquet(folder / "samples_val.parquet")
    assert samples["key"].n_unique() == samples.height == 12


def test_everything_is_in_the_trainings_run(done):
    (_, training), _, outcome = done
    client = MlflowClient(f"sqlite:///{training}/mlflow.db")
    metrics = client.get_run(outcome.run_id).data.metrics
    assert metrics["chance/val/clip/ego_mcq/inter/accuracy"] == 0.2
    assert "raw/val/video/charades/zero_shot/mean_ap" in metrics
    files = {file.path for file in client.list_artifacts(outcome.run_id, "evaluation/step-000000002")}
    assert "evaluation/step-000000002/submission_epic_mir_val.pkl" in files


def test_the_comparison_page_reads_what_was_logged(done, tmp_path):
    (_, training), _, outcome = done
    tracking = TrackingConfig(uri=f"sqlite:///{training}/mlflow.db", experiment="reports", system_metrics_interval_s=0)
    names = (
        "val/video/text_to_video/recall_at_1",
        "val/video/summary_mcq/accuracy",
        "val/video/shuffle_mcq/accuracy",
        "val/video/linear_probe/activity/hit_at_1",
    )
    config = ReportConfig(output_uri=str(tmp_path), run_ids=(outcome.run_id,), metrics=names, tracking=tracking)
    found = build_report(config, "python -m jobs.report").found
    assert found.mismatches == []
    rows = {row.name: row for row in outcome.rows}
    compared = {metric.name: next(iter(metric.cells.values())) for metric in found.metrics}
    assert compared.keys() == set(names)
    for name in names:
        assert compared[name].difference is not None, compared[name].why_none
        assert compared[name].difference.mean == pytest.approx(rows[name].ours - rows[name].raw), name


class _OneByOne:
    """Stands for actors: every row on its own, in this process."""

    def __init__(self, embedder, setup, resources):
        self._embedder = embedder(setup)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, method, *arguments):
        return getattr(self._embedder, method)(*arguments)

    def map(self, rows, method):
        return [self.call(method, [row])[0] for row in rows]


def test_two_actors_give_what_one_process_gives(done, monkeypatch):
    _, values, first = done
    monkeypatch.setattr(system, "ActorPool", _OneByOne)
    config = build_config(HierVLEvaluateConfig, values | {"num_map_points": 0}, origin="test")
    (result,) = open_evaluated(config, open_inputs(config)).measure()
    figures = {row.name: row.ours for row in first.rows if "embedding_map" not in row.name}
    assert {row.name: row.ours for row in result.rows} == pytest.approx(figures, abs=1e-4)


def test_the_system_has_to_be_that_of_the_training(trained, planted):
    with pytest.raises(UserError, match="training of hiervl"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=trained[1]))
    with pytest.raises(UserError, match="training of hierarchical_vlm"):
        open_inputs(HierVLEvaluateConfig(checkpoint=planted[1]))
