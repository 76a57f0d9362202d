"""Silhouette and neighbour purity by hand, against scikit-learn, collapsed, at chance."""

import math

import numpy as np
import pytest

from hvlm.metrics.embedding_quality import chance_purity, neighbour_purity, silhouette

# two rows along x and two along y: distance 0 inside a class, 1 between
AXES, LABELS = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), np.array([4, 4, 7, 7])


def test_by_hand():
    assert silhouette(AXES, LABELS) == pytest.approx(1.0)
    assert silhouette(AXES, np.array([4, 7, 4, 7])) == pytest.approx((0.5 - 1) / 1)
    # row 3 is alone and counts 0; rows 0 and 1: a = 1/2, b = 1; row 2: a = 1, b = 0 (to row 3)
    assert silhouette(AXES, np.array([4, 4, 4, 7])) == pytest.approx((2 * (1 - 0.5) + (0 - 1) + 0) / 4)


def test_purity_by_hand():
    assert neighbour_purity(AXES, LABELS, k=1) == 1.0
    # the second and third neighbour tie at distance 1, and neither has the label
    assert neighbour_purity(AXES, LABELS, k=2) == 0.5
    # k shrinks to 3: all others
    assert neighbour_purity(AXES, LABELS, k=10) == pytest.approx(1 / 3) == chance_purity(LABELS)
    # labels (4, 7, 4, 4): row 0 sees 7, then shares the last place between two 4s; row 1 has no equal;
    # rows 2 and 3 see each other, then share between a 4 and a 7
    mixed = neighbour_purity(AXES, np.array([4, 7, 4, 4]), k=2)
    assert mixed == pytest.approx((0.5 + 0 + 0.75 + 0.75) / 4)


def test_collapsed_embeddings_score_chance_whatever_the_order():
    # one direction at many lengths: the unit rows differ by rounding, some 1e-16
    same = np.random.default_rng(0).normal(size=7) * np.linspace(0.1, 9.0, 30)[:, None]
    labels = np.sort(np.random.default_rng(1).integers(3, size=30))
    assert neighbour_purity(same, labels, k=5) == pytest.approx(chance_purity(labels))
    assert silhouette(same, labels) == 0.0


def test_parity_with_scikit_learn(monkeypatch):
    metrics, neighbours = pytest.importorskip("sklearn.metrics"), pytest.importorskip("sklearn.neighbors")
    monkeypatch.setattr("hvlm.metrics.embedding_quality.ROWS_AT_ONCE", 16)
    random = np.random.default_rng(2)
    labels = random.integers(4, size=60)
    labels[0] = 9  # alone in its class
    rows = random.normal(size=(60, 5)) + np.eye(10, 5)[labels] * 2
    rows[1] = 0.0
    assert silhouette(rows, labels) == pytest.approx(metrics.silhouette_score(rows, labels, metric="cosine"))
    rows = np.delete(rows, 1, axis=0)  # a zero row ties with nobody in scikit-learn's search
    labels = np.delete(labels, 1)
    finder = neighbours.NearestNeighbors(n_neighbors=10, metric="cosine").fit(rows)
    found = finder.kneighbors(return_distance=False)
    assert neighbour_purity(rows, labels) == pytest.approx((labels[found] == labels[:, None]).mean())


def test_random_labels_are_at_chance():
    random = np.random.default_rng(3)
    rows = random.normal(size=(600, 8))
    values = np.array([neighbour_purity(rows, random.permutation(np.repeat([0, 1, 1], 200))) for _ in range(20)])
    expected = chance_purity(np.repeat([0, 1, 1], 200))
    assert expected == pytest.approx((200 * 199 + 400 * 399) / (600 * 599))
    assert abs(values.mean() - expected) < 3.29 * values.std() / math.sqrt(20)
    assert abs(silhouette(rows, random.integers(3, size=600))) < 0.02


def test_nothing_to_compare_is_nan():
    assert math.isnan(silhouette(AXES, np.zeros(4, int)))
    assert math.isnan(silhouette(np.empty((0, 2)), np.empty(0, int)))
    assert math.isnan(neighbour_purity(AXES[:1], LABELS[:1]))
    assert math.isnan(chance_purity(LABELS[:1]))


@pytest.mark.parametrize(
    ("rows", "labels", "k", "message"),
    [(AXES, LABELS[:3], 1, "must be"), (AXES * np.nan, LABELS, 1, "finite"), (AXES, LABELS, 0, "k = 0")],
)
def test_bad_input_is_refused(rows, labels, k, message):
    with pytest.raises(ValueError, match=message):
        neighbour_purity(rows, labels, k)
