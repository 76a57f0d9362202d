"""Sections: a figure for what the runs have, none for what they lack."""

from pipelines.reporting.comparison import compare
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import group_methods
from pipelines.reporting.sections import curve_section, metric_figures, per_class_section, recall_section
from tests.pipelines.reporting.made_runs import made_run

CURVES = {"loss": {"train/loss/total": ([1, 2], [2.0, 1.0])}, "learning rate": {}}
CONFIG = ReportConfig(output_uri="out", experiment="e", baseline="flat", num_resamples=100)
METHODS = group_methods([made_run("1" * 32, method="flat", curves=CURVES), made_run("2" * 32, method="ours")], CONFIG)


def _captions(section):
    assert all(figure["svg"].startswith("<svg") for figure in section["figures"])
    return [figure["caption"] for figure in section["figures"]]


def test_a_panel_without_curves_is_not_drawn():
    assert [caption.partition(":")[0] for caption in _captions(curve_section(METHODS))] == ["loss"]


def test_recall_of_the_direction_that_was_measured():
    assert _captions(recall_section(METHODS)) == ["Recall at k on val, text_to_video, over the queries of all runs."]


def test_classes_stand_beside_the_baseline_or_raw():
    beside = "AP per class of {} beside {}, mean over seeds."
    assert _captions(per_class_section(METHODS, "flat")) == [beside.format("ours", "flat")]
    assert _captions(per_class_section(METHODS, "raw")) == [beside.format(name, "raw") for name in ("flat", "ours")]


def test_a_metric_has_bars_and_differences_where_there_are_any():
    recall, mean_ap = compare(METHODS, CONFIG)
    assert (len(metric_figures(recall, set())), len(metric_figures(mean_ap, set()))) == (2, 1)
