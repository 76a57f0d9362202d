"""Places in a run by hand; curves come back in the order of their steps."""

from types import SimpleNamespace

from pipelines.evaluation.run_layout import evaluation_folder, evaluation_tag, metric_name, read_curves, samples_file


def test_the_trainings_own_store_has_no_mark():
    assert evaluation_folder(40, "") == "evaluation/step-000000040"
    assert evaluation_folder(40, "store-ab") == "evaluation/step-000000040/store-ab"
    assert (evaluation_tag("step", ""), evaluation_tag("step", "store-ab")) == (
        "evaluation.step",
        "evaluation.store-ab.step",
    )
    assert (metric_name("val/x", ""), metric_name("val/x", "store-ab")) == ("val/x", "store-ab/val/x")
    assert samples_file("val") == "samples_val.parquet"


class _Client:
    def get_run(self, run_id):
        return SimpleNamespace(data=SimpleNamespace(metrics={"loss": 1.0}))

    def get_metric_history(self, run_id, name):
        return [SimpleNamespace(step=step, value=value) for step, value in ((3, 0.5), (1, 2.0))]


def test_curves_are_sorted_and_a_panel_without_metrics_is_empty():
    panels = {"losses": ("loss", "other"), "none": ("nothing",)}
    assert read_curves(_Client(), "r", panels) == {"losses": {"loss": ([1, 3], [2.0, 0.5])}, "none": {}}
