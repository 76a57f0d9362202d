"""The page: self-contained, escaped, and every metric in its section."""

import re

import numpy as np
import polars as pl

from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.hierarchical_vlm.figures import group_figures
from pipelines.evaluation.inputs import open_inputs
from pipelines.evaluation.metric_table import Absent, MetricRow
from pipelines.evaluation.report import render_report, verdict
from pipelines.evaluation.results import Section, SplitResult
from tests.pipelines.evaluation.made_records import record, segment


def _result():
    rows = [
        MetricRow(name="val/frame/temporal_consistency", ours=0.7, raw=0.5, count=4, headline=True, better="neither"),
        MetricRow(name="val/video/text_to_video/recall_at_1", ours=0.5, raw=0.2, chance=0.1, count=4, headline=True),
    ]
    random = np.random.default_rng(0)
    truth = [segment("<i>spin</i>", 0, 2)]
    records = [record(f"<b>v{i}</b>", random.normal(size=(4, 3)), annotations=truth) for i in range(4)]
    details = {"classification": {}, "localisation": {}, "retrieval": {}}
    figures = group_figures(records, details, 2)["classification"]
    return SplitResult(
        split="val",
        samples=pl.DataFrame({"key": [each.key for each in records]}),
        sections={"both": Section("Both <kinds>", rows, figures), "none": Section("Empty", [])},
        absent=[Absent("val/frame/localisation/*", "no <segments>")],
    )


def test_page_needs_nothing_else_and_escapes_all_texts(planted):
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    page = render_report(inputs, [_result()], {"loss": {"train/loss/total": ([1, 2], [1.0, 0.5])}})
    assert page.startswith("<!doctype html>")
    assert 'name="viewport"' in page
    assert "light dark" in page
    # nothing is loaded from elsewhere: links are fragments or the names of XML namespaces
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    assert "<script" not in page
    assert "<b>v0" not in page
    assert "&lt;i&gt;spin" in page
    assert "no &lt;segments&gt;" in page
    assert "4 videos" in page
    assert "Both &lt;kinds&gt;" in page and "Empty" not in page
    assert inputs.manifest.manifest_hash in page


def test_verdict_is_honest():
    won = MetricRow(name="a", ours=0.5, raw=0.4, headline=True)
    lost = MetricRow(name="b", ours=0.3, raw=0.4, headline=True)
    assert (
        verdict([won, lost]) == "The model is better than the raw features on 1 of 2 headline metrics. Not better: b."
    )
    assert verdict([]).startswith("No headline metric")
