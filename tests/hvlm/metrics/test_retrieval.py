"""Retrieval ranks by hand: several right answers, ties, chance, bad input."""

import math

import numpy as np
import pytest

from hvlm.metrics.retrieval import best_ranks, chance_retrieval, summarise_ranks


def test_ranks_by_hand():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.9], [0.3, 0.2, 0.1]])
    groups = np.array([0, 1, 2])
    ranks = best_ranks(similarity, groups, groups)
    np.testing.assert_array_equal(ranks, [1, 3, 3])
    result = summarise_ranks(ranks, 3)
    assert (result.recall_at_1, result.recall_at_5, result.median_rank) == (pytest.approx(1 / 3), 1.0, 3.0)


def test_any_of_several_right_answers_counts_and_the_others_do_not_push_it_down():
    similarity = np.array([[0.9, 0.8, 0.7, 0.1]])
    np.testing.assert_array_equal(best_ranks(similarity, np.array([4]), np.array([4, 4, 5, 4])), [1])
    np.testing.assert_array_equal(best_ranks(similarity, np.array([4]), np.array([5, 4, 4, 6])), [2])


def test_ties_are_counted_pessimistically():
    groups = np.arange(10)
    collapsed = best_ranks(np.ones((10, 10)), groups, groups)
    np.testing.assert_array_equal(collapsed, 10)
    assert summarise_ranks(collapsed, 10).recall_at_1 == 0.0


def test_chance_equals_simulation_and_formula():
    queries, candidates = np.array([0, 1, 1]), np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    chance = chance_retrieval(queries, candidates)
    # 12 candidates; one right: 1/12; two right: 2/12
    assert chance.recall_at_1 == pytest.approx((1 / 12 + 2 / 12 + 2 / 12) / 3)
    random = np.random.default_rng(0)
    ranks = np.concatenate([best_ranks(random.random((3, 12)), queries, candidates) for _ in range(4000)])
    simulated = summarise_ranks(ranks, 12)
    assert simulated.recall_at_1 == pytest.approx(chance.recall_at_1, abs=0.01)
    assert simulated.recall_at_5 == pytest.approx(chance.recall_at_5, abs=0.015)
    assert simulated.recall_at_10 == pytest.approx(chance.recall_at_10, abs=0.015)
    assert chance_retrieval(np.array([0]), np.array([0, 1])).recall_at_5 == 1.0


def test_no_queries_is_nan():
    ranks = best_ranks(np.empty((0, 3)), np.empty(0, np.int64), np.arange(3))
    assert math.isnan(summarise_ranks(ranks, 3).recall_at_1)
    assert math.isnan(chance_retrieval(np.empty(0, np.int64), np.arange(3)).median_rank)


@pytest.mark.parametrize(
    ("similarity", "queries", "message"),
    [
        (np.ones((1, 3)), [0], "must be"),
        (np.array([[np.nan, 1.0]]), [0], "NaN"),
        (np.ones((1, 2)), [7], "no right answer"),
    ],
)
def test_bad_input_is_refused(similarity, queries, message):
    with pytest.raises(ValueError, match=message):
        best_ranks(similarity, np.array(queries), np.array([0, 1]))
