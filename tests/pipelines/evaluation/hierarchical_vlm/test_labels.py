"""Targets from annotations: labels of rows, true segments."""

import numpy as np

from pipelines.evaluation.hierarchical_vlm.labels import (
    row_labels,
    segment_spans,
    true_segments,
)
from tests.pipelines.evaluation.made_records import record, segment

ROWS = np.eye(6)
ONE = record("a", ROWS, annotations=[segment("spin", 0, 4), segment("blink", 2, 3)])
TWO = record("b", ROWS, annotations=[segment("spin", 1, 3)])
NONE = record("c", ROWS)


def test_rows_belong_to_the_shortest_segment_and_else_to_the_background():
    names = ["blink", "spin"]
    assert row_labels(ONE, names).tolist() == [2, 2, 1, 2, 0, 0]
    assert row_labels(NONE, names).tolist() == [0] * 6
    tied = record("d", ROWS, annotations=[segment("spin", 0, 2), segment("blink", 1, 3)])
    assert row_labels(tied, names).tolist() == [2, 2, 1, 0, 0, 0]  # of two equally long ones the first


def test_true_segments_and_spans():
    truth = true_segments([ONE, NONE, TWO], ["blink", "spin"])
    assert truth.video_N.tolist() == ["a", "a", "b"]
    assert truth.label_N.tolist() == [1, 0, 1]
    assert segment_spans([]).shape == (0, 2)
