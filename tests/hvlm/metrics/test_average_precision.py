"""The AP rule on tables that can be checked by hand, and against precision-recall points of scikit-learn."""

import math

import numpy as np
import pytest

from hvlm.metrics.average_precision import average_precision, interpolated_average_precision


@pytest.mark.parametrize(
    ("scores", "relevant", "num_positives", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 1, 0], 2, 1.0),
        # precision at the hits: 1/1, 2/3 -> 1/2 * 1 + 1/2 * 2/3
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, 0.5 + 1 / 3),
        # hits at rank 2 and 3: precision 1/2 and 2/3; the envelope lifts the first to 2/3
        ([0.9, 0.8, 0.7], [0, 1, 1], 2, 2 / 3),
        # one of two positives is never found
        ([0.9], [1], 2, 0.5),
        ([0.9, 0.8], [0, 0], 2, 0.0),
        ([], [], 3, 0.0),
        # all scores equal: one point, precision = share of positives
        ([0.5] * 4, [1, 0, 0, 0], 1, 0.25),
    ],
)
def test_value_by_hand(scores, relevant, num_positives, expected):
    assert interpolated_average_precision(scores, relevant, num_positives) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "relevant", "num_positives", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, (1 + 2 / 3) / 2),
        # precision 1/2 at the first hit stays: nothing lifts it to 2/3
        ([0.9, 0.8, 0.7], [0, 1, 1], 2, (1 / 2 + 2 / 3) / 2),
        ([0.9], [1], 2, 0.5),
        ([], [], 3, 0.0),
        # two of three tie, one of them right: both are read at rank 3
        ([0.9, 0.5, 0.5], [1, 1, 0], 2, (1 + 2 / 3) / 2),
        ([0.9, -np.inf, -np.inf], [1, 0, 0], 1, 1.0),
    ],
)
def test_plain_value_by_hand(scores, relevant, num_positives, expected):
    assert average_precision(scores, relevant, num_positives) == pytest.approx(expected)


def test_class_without_positives_is_nan():
    assert math.isnan(interpolated_average_precision([0.9, 0.1], [0, 0], 0))
    assert math.isnan(average_precision([0.9, 0.1], [0, 0], 0))


def test_ties_do_not_depend_on_row_order():
    scores, relevant = [0.9, 0.5, 0.5, 0.5, 0.1], [0, 1, 0, 1, 1]
    values = {
        round(interpolated_average_precision(np.array(scores)[p], np.array(relevant)[p], 3), 12)
        for p in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 3, 4, 1])
    }
    assert len(values) == 1


def test_parity_with_points_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    for trial in range(20):
        scores = np.round(random.normal(size=60), 1 if trial % 2 else 6)  # rounded to a tenth: many ties
        relevant = random.random(60) < 0.3
        precision, recall, _ = metrics.precision_recall_curve(relevant, scores)
        envelope = np.maximum.accumulate(precision)  # recall falls along scikit-learn's points
        expected = float(np.sum((recall[:-1] - recall[1:]) * envelope[:-1]))
        assert interpolated_average_precision(scores, relevant, int(relevant.sum())) == pytest.approx(expected)
        plain = metrics.average_precision_score(relevant, scores)
        assert average_precision(scores, relevant, int(relevant.sum())) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("scores", "relevant", "count"), [([np.nan], [1], 1), ([0.1, 0.2], [1], 1), ([0.1, 0.2], [1, 1], 1)]
)
def test_bad_input_is_refused(scores, relevant, count):
    with pytest.raises(ValueError, match=r"NaN|must be|relevant"):
        interpolated_average_precision(scores, relevant, count)
