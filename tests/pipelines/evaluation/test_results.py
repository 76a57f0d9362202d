"""Results of a split: its rows in the order of the sections."""

import polars as pl

from pipelines.evaluation.metric_table import MetricRow
from pipelines.evaluation.results import Section, SplitResult


def test_rows_are_those_of_all_sections():
    rows = [MetricRow(name=name) for name in "abc"]
    sections = {"x": Section("X", rows[:1]), "y": Section("Y", rows[1:])}
    result = SplitResult(split="val", samples=pl.DataFrame(), sections=sections)
    assert [row.name for row in result.rows] == ["a", "b", "c"]
