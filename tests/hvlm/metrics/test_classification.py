"""Classification metrics on hand-made tables, ties and empty cases, chance level, parity with scikit-learn."""

import math

import numpy as np
import pytest

from hvlm.metrics.classification import (
    average_precision_per_class,
    charades_mean_ap,
    class_separation,
    evaluate_classification,
    hit_at_k,
    knn_scores,
    mean_of_present,
)

# three videos, four classes; class 3 never occurs; video 1 carries two labels
SCORES = np.array([[0.9, 0.5, 0.1, 0.0], [0.2, 0.1, 0.8, 0.7], [0.6, 0.3, 0.2, 0.1]])
LABELS = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]], dtype=bool)


def test_table_by_hand():
    result = evaluate_classification(SCORES, LABELS)
    # class 0 ranks videos 0, 2, 1: hits at 1 and 3 -> 1/2 + 1/2 * 2/3; class 1 ranks 0, 2: hit at 2 -> 1/2; class 2: 1
    np.testing.assert_allclose(result.ap_per_class, [5 / 6, 0.5, 1.0, np.nan])
    assert result.mean_ap == pytest.approx((5 / 6 + 0.5 + 1.0) / 3)
    assert result.hit_at_1 == pytest.approx(2 / 3)
    assert result.hit_at_3 == 1.0
    assert result.top_1_single_label == 0.5
    assert (result.num_videos, result.num_single_label) == (3, 2)


def test_ties_are_counted_pessimistically():
    labels = np.array([[False, True, False]])
    tied = np.array([[0.5, 0.5, 0.1]])
    assert hit_at_k(tied, labels, 1) == 0.0
    assert hit_at_k(tied, labels, 2) == 1.0
    # two true labels that tie with each other do not push one another down
    assert hit_at_k(tied, np.array([[True, True, False]]), 1) == 1.0


def test_nothing_to_count_is_nan():
    assert math.isnan(hit_at_k(SCORES, np.zeros_like(LABELS), 1))
    assert math.isnan(hit_at_k(SCORES[:0], LABELS[:0], 1))
    assert math.isnan(mean_of_present(average_precision_per_class(SCORES, np.zeros_like(LABELS))))


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        evaluate_classification(np.full_like(SCORES, np.nan), LABELS)


def test_random_scores_are_at_chance():
    random = np.random.default_rng(0)
    labels = np.eye(10, dtype=bool)[random.integers(10, size=4000)]
    result = evaluate_classification(random.random((4000, 10)), labels)
    assert result.hit_at_1 == pytest.approx(0.1, abs=0.02)
    assert result.hit_at_3 == pytest.approx(0.3, abs=0.03)
    assert result.mean_ap == pytest.approx(0.1, abs=0.03)


def test_charades_by_hand():
    # video 2 has no label, so its best scores fall behind: class 0 ranks 0, 1, 2 (hits 1 and 2); class 1 ranks 0, 1, 2
    # (hit at 2: 1/2); class 2 has no video
    scores = np.array([[0.5, 0.6, 0.1], [0.4, 0.3, 0.2], [0.9, 0.9, 0.9]])
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    assert charades_mean_ap(scores, labels) == (pytest.approx((1.0 + 0.5) / 2), 1)
    value, absent = charades_mean_ap(scores, np.zeros_like(labels))
    assert math.isnan(value) and absent == 3


def test_charades_parity_with_scikit_learn_and_chance():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(4)
    labels = random.random((400, 20)) < 0.1
    labels[labels.sum(axis=1) == 0, 0] = True  # every video labelled
    scores = np.round(random.random((400, 20)), 2)  # with ties
    expected = [metrics.average_precision_score(labels[:, c], scores[:, c]) for c in range(20)]
    value, absent = charades_mean_ap(scores, labels)
    assert (value, absent) == (pytest.approx(np.mean(expected)), 0)
    chance = labels.mean(axis=0)
    spread = 1.96 * np.std(expected - chance) / math.sqrt(20)
    # AP of a random order is the share of positives plus about ln(N) / N = .015
    assert abs(value - chance.mean() - math.log(400) / 400) < spread


def test_knn_by_hand():
    train = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = np.array([[True, False], [False, True], [True, True]])
    scores = knn_scores(train, labels, np.array([[2.0, 0.0]]), k=2, temperature=0.5)
    weight = math.exp((math.cos(math.pi / 4) - 1) / 0.5)  # the second neighbour, at 45 degrees
    np.testing.assert_allclose(scores, [[1.0, weight / (1 + weight)]])


def test_knn_shrinks_k_and_refuses_other_widths():
    train, labels = np.eye(2), np.eye(2, dtype=bool)
    assert knn_scores(train, labels, np.eye(2), k=20).shape == (2, 2)
    with pytest.raises(ValueError, match="width"):
        knn_scores(train, labels, np.eye(3))


def test_separation_by_hand():
    # class 0 points along x and class 1 along y: intra 0, inter 1 - cos(90 deg) = 1
    rows = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    assert class_separation(rows, np.array([0, 0, 5])) == pytest.approx({"intra": 0.0, "inter": 1.0, "separation": 1.0})
    assert math.isnan(class_separation(rows, np.array([1, 1, 1]))["separation"])
