"""EPIC-KITCHENS retrieval by hand, against scikit-learn, with ties, unanswered queries, chance and bad input."""

import math

import numpy as np
import pytest

from hvlm.metrics.multi_instance_retrieval import (
    average_precisions,
    dual_softmax,
    evaluate_multi_instance,
    normalised_gains,
)

# three videos, four sentences; rows are ranked (0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)
SIMILARITY = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.1, 0.9, 0.3], [0.1, 0.2, 0.3, 0.4]])
RELEVANCY = np.array([[1.0, 0.0, 1.0, 0.5], [0.0, 0.5, 0.0, 1.0], [0.25, 1.0, 0.5, 0.0]])


def test_average_precision_by_hand():
    # row 0: relevant at 1 and 3, nothing partial above them; row 1: at 3 of (0, 0, 1, .5);
    # row 2: at 3 of (0, .5, 1, .25): graded precision (0 + .5 + 1) / 3
    expected = [(1 + 2 / 3) / 2, 1 / 3, 1.5 / 3]
    np.testing.assert_allclose(average_precisions(SIMILARITY, RELEVANCY), expected)
    strict = average_precisions(SIMILARITY, (RELEVANCY == 1).astype(float))
    np.testing.assert_allclose(strict, [(1 + 2 / 3) / 2, 1 / 3, 1 / 3])


def test_gain_by_hand():
    def discounted(gains):
        return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))

    # K = 3, 2, 3: only so many of the ranked relevancies count
    expected = [
        discounted([1, 0, 1]) / discounted([1, 1, 0.5]),
        0.0,
        discounted([0, 0.5, 1]) / discounted([1, 0.5, 0.25]),
    ]
    np.testing.assert_allclose(normalised_gains(SIMILARITY, RELEVANCY), expected)


def test_directions_and_their_average():
    result = evaluate_multi_instance(SIMILARITY, RELEVANCY)
    assert result.video_to_text.mean_ap == pytest.approx(np.mean(average_precisions(SIMILARITY, RELEVANCY)))
    assert result.text_to_video.ndcg == pytest.approx(np.mean(normalised_gains(SIMILARITY.T, RELEVANCY.T)))
    assert result.mean_ap == pytest.approx((result.video_to_text.mean_ap + result.text_to_video.mean_ap) / 2)
    assert result.ndcg == pytest.approx((result.video_to_text.ndcg + result.text_to_video.ndcg) / 2)
    assert (result.video_to_text.num_queries, result.text_to_video.num_queries) == (3, 4)


def test_ideal_order_is_one():
    assert normalised_gains(RELEVANCY, RELEVANCY).tolist() == [1.0, 1.0, 1.0]
    assert average_precisions(RELEVANCY, RELEVANCY).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_fall_as_argsort_leaves_them(dtype):
    """Row by row in plain loops over the two orders that the official code takes; four distinct values, 60 columns."""
    random = np.random.default_rng(0)
    similarity = random.integers(4, size=(20, 60)).astype(dtype)
    relevancy = random.choice([0.0, 0.25, 0.5, 1.0], size=(20, 60), p=[0.5, 0.2, 0.2, 0.1])
    relevancy[:, 0] = 1.0
    ap, gain = average_precisions(similarity, relevancy), normalised_gains(similarity, relevancy)
    for row, wanted in enumerate(relevancy):
        seen, total = 0.0, 0.0
        for rank, column in enumerate(np.argsort(-similarity[row]), start=1):
            seen += wanted[column]
            total += seen / rank if wanted[column] == 1 else 0.0
        assert ap[row] == pytest.approx(total / (wanted == 1).sum(), abs=1e-9)
        order, best = np.argsort(similarity[row])[::-1], sorted(wanted, reverse=True)
        reached = sum(wanted[order[r]] / math.log2(r + 2) for r in range((wanted > 0).sum()))
        ideal = sum(best[r] / math.log2(r + 2) for r in range((wanted > 0).sum()))
        assert gain[row] == pytest.approx(reached / ideal, abs=1e-9)


def test_parity_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    similarity = random.normal(size=(30, 25))
    relevancy = random.choice([0.0, 0.5, 1.0], size=(30, 25))
    relevancy[:, 0] = 1.0
    gains = [
        metrics.ndcg_score(wanted[None], got[None], k=int((wanted > 0).sum()))
        for wanted, got in zip(relevancy, similarity, strict=True)
    ]
    np.testing.assert_allclose(normalised_gains(similarity, relevancy), gains, atol=1e-12)
    strict = [metrics.average_precision_score(w == 1, s) for w, s in zip(relevancy, similarity, strict=True)]
    np.testing.assert_allclose(average_precisions(similarity, (relevancy == 1).astype(float)), strict, atol=1e-12)


def test_unanswered_queries_are_left_out_and_counted():
    relevancy = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    result = evaluate_multi_instance(SIMILARITY, relevancy).video_to_text
    assert (result.num_queries, result.num_without_relevant, result.num_without_gain) == (3, 2, 1)
    assert result.mean_ap == 1.0
    assert result.ndcg == pytest.approx(0.5)  # 1 for row 0, 0 for row 1
    nothing = evaluate_multi_instance(SIMILARITY, np.zeros((3, 4)))
    assert math.isnan(nothing.mean_ap) and math.isnan(nothing.ndcg)
    assert math.isnan(evaluate_multi_instance(np.empty((0, 4)), np.empty((0, 4))).video_to_text.mean_ap)


def test_random_similarities_are_at_chance():
    # one right sentence of 20: E[AP] = (1 + 1/2 + ... + 1/20) / 20, E[nDCG at 1] = 1/20
    random = np.random.default_rng(2)
    relevancy = np.eye(20)[random.integers(20, size=4000)]
    similarity = random.random((4000, 20))
    ap, gain = average_precisions(similarity, relevancy), normalised_gains(similarity, relevancy)
    harmonic = sum(1 / k for k in range(1, 21)) / 20
    # 99.9 % intervals
    assert abs(ap.mean() - harmonic) < 3.29 * ap.std() / math.sqrt(4000)
    assert abs(gain.mean() - 0.05) < 3.29 * gain.std() / math.sqrt(4000)


def test_dual_softmax_by_hand_and_where_it_looks():
    similarity = np.array([[10.0, 20.0], [30.0, 5.0]])

    def share(values):
        return np.exp(values) / np.exp(values).sum()

    weighted = np.stack([share(similarity[:, s] / 500) * similarity[:, s] for s in (0, 1)], axis=1)
    np.testing.assert_allclose(dual_softmax(similarity), [share(weighted[0]), share(weighted[1])])
    changed = similarity.copy()
    changed[1, 0] = 300.0
    assert dual_softmax(changed)[0, 0] != dual_softmax(similarity)[0, 0]  # another video's score moves this one


@pytest.mark.parametrize(
    ("similarity", "relevancy", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), "must be"),
        (np.array([[np.nan, 1.0]]), np.ones((1, 2)), "NaN"),
        (np.ones((1, 2)), np.array([[0.0, 1.5]]), "outside"),
        (np.ones((1, 2)), np.array([[0.0, np.nan]]), "outside"),
    ],
)
def test_bad_input_is_refused(similarity, relevancy, message):
    with pytest.raises(ValueError, match=message):
        evaluate_multi_instance(similarity, relevancy)
