"""The official detection rule on tables by hand: perfect, duplicate, shifted, absent, empty, tied, several true
segments.
"""

import math

import numpy as np
import pytest

from hvlm.metrics.localisation import (
    OFFICIAL_THRESHOLDS,
    average_recall,
    evaluate_detection,
    proposal_auc,
    segments_of,
    temporal_iou,
    top_1_overlap,
)

TRUTH = segments_of([("a", 0, 0.0, 10.0, 1.0), ("a", 1, 20.0, 30.0, 1.0), ("b", 0, 5.0, 9.0, 1.0)])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 10], [0, 10], 1.0),
        ([0, 10], [5, 15], 1 / 3),  # shifted by half its length
        ([0, 10], [10, 20], 0.0),
        ([0, 10], [12, 20], 0.0),
        ([0, 10], [2, 4], 0.2),
        ([3, 3], [3, 3], 0.0),
    ],
)
def test_iou_by_hand(first, second, expected):
    assert temporal_iou(np.array([first], float), np.array([second], float))[0, 0] == pytest.approx(expected)


def test_thresholds_are_the_official_ten():
    assert OFFICIAL_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_perfect_predictions_score_1():
    result = evaluate_detection(TRUTH, TRUTH)
    assert (result.mean_ap(0.5), result.mean_ap(0.95), result.average_map()) == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(result.classes, [0, 1])


def test_a_duplicate_before_the_second_hit_is_a_false_positive():
    found = segments_of([("a", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8), ("b", 0, 5, 9, 0.7)])
    truth = TRUTH.take(TRUTH.label_N == 0)
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    assert evaluate_detection(found, truth).mean_ap(0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_half_shifted_segment_misses_at_0_5():
    found = segments_of([("a", 0, 5, 15, 0.9), ("b", 0, 5, 9, 0.8)])
    truth = TRUTH.take(TRUTH.label_N == 0)
    assert evaluate_detection(found, truth).mean_ap(0.5) == pytest.approx(0.25)
    assert evaluate_detection(found, truth, (0.3,)).mean_ap(0.3) == 1.0


def test_video_without_the_class_and_class_without_truth():
    wrong_video = segments_of([("c", 0, 0, 10, 0.99), ("a", 0, 0, 10, 0.9), ("b", 0, 5, 9, 0.8)])
    truth = TRUTH.take(TRUTH.label_N == 0)
    assert evaluate_detection(wrong_video, truth).mean_ap(0.5) == pytest.approx(2 / 3)
    # class 7 has no truth: its predictions change nothing; class 1 is never predicted: AP 0
    found = segments_of([("a", 0, 0, 10, 0.9), ("b", 0, 5, 9, 0.8), ("a", 7, 0, 10, 1.0)])
    np.testing.assert_allclose(evaluate_detection(found, TRUTH).ap_HC[0], [1.0, 0.0])


def test_no_predictions_and_no_truth():
    assert evaluate_detection(segments_of([]), TRUTH).average_map() == 0.0
    assert math.isnan(evaluate_detection(TRUTH, segments_of([]), (0.5,)).mean_ap(0.5))


def test_a_prediction_takes_the_best_free_segment_and_then_the_next():
    truth = segments_of([("a", 0, 0, 10, 1), ("a", 0, 2, 12, 1)])
    found = segments_of([("a", 0, 1, 11, 0.9), ("a", 0, 1.5, 11.5, 0.8)])
    # both overlap both by more than .75: the second prediction falls back to the segment that is left
    assert evaluate_detection(found, truth).mean_ap(0.75) == 1.0


def test_ties_do_not_depend_on_row_order():
    rows = [("a", 0, 0, 10, 0.5), ("b", 0, 0, 4, 0.5), ("b", 0, 5, 9, 0.5), ("c", 0, 0, 1, 0.5)]
    truth = TRUTH.take(TRUTH.label_N == 0)
    values = {
        evaluate_detection(segments_of([rows[i] for i in order]), truth).average_map()
        for order in ([0, 1, 2, 3], [3, 2, 1, 0])
    }
    assert len(values) == 1
    # one tie group: 2 hits among 4 rows
    assert values.pop() == pytest.approx(0.5)


def test_average_recall_by_hand():
    found = segments_of([("a", 5, 20, 30, 0.9), ("a", 5, 0, 10, 0.8), ("b", 5, 0, 9, 0.7)])
    recall = average_recall(found, TRUTH)
    # b: [0, 9) on [5, 9) is 4/9 < .5. k=1 finds 1 of 3, k=10 finds 2 of 3, at every threshold
    assert recall == pytest.approx({1: 1 / 3, 10: 2 / 3, 100: 2 / 3})
    assert proposal_auc(found, TRUTH) == pytest.approx((1 / 3 + 99 * 2 / 3) / 100)
    assert math.isnan(average_recall(found, segments_of([]))[1])
    assert average_recall(segments_of([]), TRUTH) == {1: 0.0, 10: 0.0, 100: 0.0}


def test_top_1_overlap_by_hand():
    found = segments_of([("a", 5, 0, 10, 0.9), ("a", 5, 20, 30, 0.1)])
    hit, mean = top_1_overlap(found, TRUTH)
    assert (hit, mean) == pytest.approx((1 / 3, 1 / 3))
    assert all(math.isnan(value) for value in top_1_overlap(found, segments_of([])))


def test_nan_and_shapes_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        segments_of([("a", 0, 0.0, float("nan"), 1.0)])


def test_parity_with_a_plain_reading_of_the_toolkit():
    random = np.random.default_rng(0)
    for _ in range(10):
        truth = _random_segments(random, 12)
        found = _random_segments(random, 40)
        expected = np.array(
            [[_toolkit_ap(found, truth, label, t) for label in np.unique(truth.label_N)] for t in (0.3, 0.5)]
        )
        np.testing.assert_allclose(evaluate_detection(found, truth, (0.3, 0.5)).ap_HC, expected)


def _random_segments(random, count):
    spans = np.sort(random.uniform(0, 30, size=(count, 2)), axis=1)
    return segments_of(
        [(f"v{random.integers(3)}", int(random.integers(2)), *span, float(random.random())) for span in spans]
    )


def _toolkit_ap(found, truth, label, threshold):
    """Row by row, as the toolkit writes it: lists, a flag per true segment, precision and recall per prediction."""
    rows = sorted((-found.score_N[n], n) for n in range(len(found)) if found.label_N[n] == label)
    wanted = [m for m in range(len(truth)) if truth.label_N[m] == label]
    used, hits = set(), []
    for _, n in rows:
        ious = {
            m: temporal_iou(found.span_N2[[n]], truth.span_N2[[m]])[0, 0]
            for m in wanted
            if truth.video_N[m] == found.video_N[n]
        }
        best = next(
            (m for m in sorted(ious, key=ious.get, reverse=True) if ious[m] >= threshold and m not in used), None
        )
        used |= {best} - {None}
        hits.append(best is not None)
    precision = [0.0] + [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))] + [0.0]
    recall = [0.0] + [sum(hits[: i + 1]) / len(wanted) for i in range(len(hits))] + [1.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))
