"""Multiple choice by hand: types, both tie rules, intervals, chance and bad input."""

import math

import numpy as np
import pytest
from scipy import stats

from hvlm.metrics.multiple_choice import (
    choice_accuracy,
    ego_mcq,
    question_credit,
    shuffle_credit,
    shuffle_mcq,
    wilson_interval,
)

# four questions of three options: hit, miss, tie of options 1 and 2 (right: 2), tie of all (right: 0)
SCORES = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.1, 0.7, 0.7], [0.5, 0.5, 0.5]])
ANSWERS = np.array([0, 2, 2, 0])


def test_both_tie_rules_by_hand():
    assert question_credit(SCORES, ANSWERS).tolist() == [1.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(question_credit(SCORES, ANSWERS, "share"), [1.0, 0.0, 1 / 2, 1 / 3])
    result = choice_accuracy(SCORES, ANSWERS)
    assert (result.accuracy, result.num_questions, result.num_tied) == (0.5, 4, 2)
    assert choice_accuracy(SCORES, ANSWERS, "share").accuracy == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)


def test_the_width_of_a_tie():
    answer = np.array([0])
    near, far = np.array([[0.5, 0.5 + 0.9e-5]]), np.array([[0.5, 0.5 + 1.1e-5]])
    assert question_credit(near, answer, "share").tolist() == [0.5]
    assert question_credit(far, answer, "share").tolist() == [0.0]
    assert question_credit(near, answer, "first").tolist() == [0.0]
    assert question_credit(np.array([[-np.inf, 0.1], [-np.inf, -np.inf]]), np.array([0, 0]), "share").tolist() == [
        0,
        0.5,
    ]


def test_inter_and_intra_are_apart():
    result = ego_mcq(SCORES, ANSWERS, np.array([1, 1, 2, 1]))
    assert (result.inter.accuracy, result.inter.num_questions) == (pytest.approx(2 / 3), 3)
    assert (result.intra.accuracy, result.intra.num_questions) == (0.0, 1)
    only_inter = ego_mcq(SCORES, ANSWERS, np.ones(4, np.int64))
    assert math.isnan(only_inter.intra.accuracy) and math.isnan(only_inter.intra.low)


def test_shuffle_averages_over_seeds_and_counts_questions_once():
    scores = np.stack([SCORES, SCORES[:, ::-1]])
    answers = np.stack([ANSWERS, ANSWERS])
    # reversed: question 0 misses, question 1 hits, question 2 misses, question 3 is the same tie
    np.testing.assert_allclose(shuffle_credit(scores, answers), [0.5, 0.5, 0.25, 1 / 3])
    result = shuffle_mcq(scores, answers)
    assert (result.accuracy, result.num_questions, result.num_tied) == (pytest.approx((1.25 + 1 / 3) / 4), 4, 2)
    assert (result.low, result.high) == wilson_interval(result.accuracy, 4)


def test_an_order_blind_model_is_exactly_at_chance():
    noise = np.random.default_rng(0).uniform(-4e-6, 4e-6, size=(5, 50, 5))
    assert shuffle_mcq(0.7 + noise, np.zeros((5, 50), np.int64)).accuracy == pytest.approx(0.2)


def test_random_scores_are_at_chance_within_the_interval():
    random = np.random.default_rng(1)
    for ties in ("first", "share"):
        result = choice_accuracy(random.random((2000, 5)), random.integers(5, size=2000), ties)
        assert result.low <= 0.2 <= result.high
        assert result.high - result.low < 0.04


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (7, 10), (83, 400), (1, 1)])
def test_wilson_equals_scipy(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_questions_is_nan():
    empty = choice_accuracy(np.empty((0, 5)), np.empty(0, np.int64))
    assert math.isnan(empty.accuracy) and empty.num_questions == 0
    assert math.isnan(shuffle_mcq(np.empty((2, 0, 5)), np.empty((2, 0), np.int64)).accuracy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: question_credit(SCORES, ANSWERS[:3]), "must be"),
        (lambda: question_credit(np.full((1, 2), np.nan), np.array([0])), "NaN"),
        (lambda: question_credit(SCORES, np.array([0, 3, 0, 0])), "no index"),
        (lambda: ego_mcq(SCORES, ANSWERS, np.array([1, 2, 3, 1])), "inter"),
        (lambda: shuffle_credit(np.empty((0, 4, 3)), np.empty((0, 4), np.int64)), "seeds"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
