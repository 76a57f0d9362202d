import numpy as np
import pytest

from hvlm.video.spans import covered_s, meets_spans, merge_spans


def test_spans_are_put_together_whatever_their_order_and_number():
    assert merge_spans([(5, 7), [1, 2], (2, 3), (6, 6.5), (6, 8)]) == [(1, 3), (5, 8)]
    assert merge_spans([(1, 2), (2, 3), (5, 8)]) == merge_spans([(5, 8), (1, 3)])
    assert merge_spans([(0.1 + 0.2, 1)]) == merge_spans([(0.3, 1)])  # 0.30000000000000004


def test_what_lies_before_the_video_or_has_no_length_is_no_span():
    assert merge_spans([(-2, 1), (-3, -1), (4, 4), (6, 5)]) == [(0, 1)]
    assert merge_spans([]) == []


def test_seconds_that_spans_cover_end_with_the_video():
    assert covered_s([(1.0, 2.5), (4.0, 9.0), (12.0, 13.0)], 6.0) == 1.5 + 2.0
    assert covered_s([], 6.0) == 0.0


@pytest.mark.parametrize(
    ("span", "rows"),
    [
        ((1.0, 2.0), [1]),  # half open on both sides
        ((0.9, 2.1), [0, 1, 2]),
        ((1.4, 1.5), [1]),  # shorter than a row
        ((1.0, 1.0000005), []),  # an instant
        ((0.0, 99.0), [0, 1, 2, 3]),
        ((4.0, 9.0), []),
    ],
)
def test_rows_that_meet_a_span(span: tuple[float, float], rows: list[int]):
    assert np.flatnonzero(meets_spans(np.arange(4.0), 1.0, [span])).tolist() == rows


def test_a_boundary_that_only_rounding_passes_is_not_met():
    starts = np.arange(10) / 10
    assert np.flatnonzero(meets_spans(starts, 0.1, [(0.3, 0.6)])).tolist() == [3, 4, 5]  # 0.2 + 0.1 > 0.3


@pytest.mark.parametrize("seed", range(20))
def test_many_spans_are_met_as_each_alone(seed: int):
    rng = np.random.default_rng(seed)
    begins = rng.uniform(0, 50, rng.integers(0, 9))
    spans = merge_spans(np.stack([begins, begins + rng.uniform(0.01, 5, len(begins))], axis=1))
    starts, length = np.arange(200) * 0.31, float(rng.uniform(0.05, 3))
    each = [np.minimum(starts + length, end) - np.maximum(starts, begin) > 1e-6 for begin, end in spans]
    assert meets_spans(starts, length, spans).tolist() == np.any([np.zeros(200, bool), *each], axis=0).tolist()
