"""The table: cells, order, better or not, flat names for MLflow, text."""

import json

import pytest

from pipelines.evaluation.metric_table import (
    MetricRow,
    beats_raw,
    flat_metrics,
    format_value,
    plain_rows,
    rows_of,
    text_table,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"ours": 0.5, "raw": 0.4}, True),
        ({"ours": 0.4, "raw": 0.4}, False),
        ({"ours": 0.5, "raw": 0.4, "chance": 0.5}, False),  # no better than guessing
        ({"ours": 0.5, "raw": 0.4, "floor": 0.6, "chance": 0.1}, False),  # a segment over the whole video does better
        ({"ours": 0.5, "raw": 0.4, "floor": NAN}, True),
        ({"ours": 0.5, "raw": 0.4, "held_out": False}, None),
        ({"ours": 3.0, "raw": 4.0, "better": "lower"}, True),
        ({"ours": 0.5, "raw": 0.4, "better": "neither"}, None),
        ({"ours": NAN, "raw": 0.4}, None),
        ({"ours": 0.5}, None),
    ],
)
def test_better_than_raw(cells, expected):
    assert beats_raw(MetricRow(name="x", **cells)) is expected


def test_rows_keep_the_order_of_names_and_miss_what_a_column_lacks():
    rows = rows_of({"ours": {"b": 1.0, "a": 2.0}, "chance": {"a": 0.5}}, "val/video", count=3)
    assert [(row.name, row.ours, row.chance, row.count) for row in rows] == [
        ("val/video/b", 1.0, None, 3),
        ("val/video/a", 2.0, 0.5, 3),
    ]


def test_flat_names_and_no_nan():
    row = MetricRow(name="val/x", ours=0.5, raw=0.25, floor=NAN, chance=0.1)
    assert flat_metrics([row]) == {"val/x": 0.5, "raw/val/x": 0.25, "chance/val/x": 0.1}
    assert json.loads(json.dumps(plain_rows([row]), allow_nan=False))[0]["floor"] is None


def test_text_counts_where_ours_is_better():
    rows = [
        MetricRow(name="a", ours=0.5, raw=0.4, headline=True, count=7),
        MetricRow(name="b", ours=12.0, raw=NAN, headline=True, count=7),
        MetricRow(name="c", ours=0.1, raw=0.2, headline=True),
        MetricRow(name="hidden", ours=0.9, raw=0.1),
    ]
    text = text_table(rows)
    assert "hidden" not in text
    assert "12.0" in text
    assert "7 videos" in text
    assert text.endswith("on 1 of 2 metrics")
    assert "metrics.json" in text_table([])


def test_cells():
    assert [format_value(value) for value in (0.12345, -1e-9, 12.34, NAN, None)] == ["0.123", "0.000", "12.3", "-", "-"]
