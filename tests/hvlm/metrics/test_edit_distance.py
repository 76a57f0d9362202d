"""Edit distance by hand, against a recursion, and at chance."""

import math
from functools import cache
from itertools import product

import numpy as np
import pytest

from hvlm.metrics.edit_distance import edit_distance, evaluate_anticipation, levenshtein


def _distance(first, second) -> int:
    first, second = np.array(list(first)), np.array(list(second))
    return int(levenshtein(first[:, None] == second[None, :]))


def _recursion(first, second) -> int:
    @cache
    def rest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return len(first) - i + len(second) - j
        if first[i] == second[j]:
            return rest(i + 1, j + 1)
        return 1 + min(rest(i + 1, j), rest(i, j + 1), rest(i + 1, j + 1))

    return rest(0, 0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("kitten", "sitting", 3),
        ("abc", "abc", 0),
        ("abc", "xyz", 3),
        ("abcd", "bcda", 2),  # delete in front, insert behind
        ("ab", "ba", 2),  # a swap: 1 by Damerau-Levenshtein
        ("aaa", "a", 2),
    ],
)
def test_distance_by_hand(first, second, expected):
    assert _distance(first, second) == expected


def test_distance_equals_the_recursion():
    random = np.random.default_rng(0)
    for _ in range(60):
        lengths = random.integers(1, 9, size=2)
        first, second = (tuple(random.integers(3, size=n).tolist()) for n in lengths)
        assert _distance(first, second) == _recursion(first, second)


def test_best_of_k_for_each_kind_apart():
    true_verb, true_noun = np.array([[1, 2, 3, 4]]), np.array([[5, 6, 7, 8]])
    # sequence 0 has all verbs and no noun, sequence 1 all nouns and two verbs: verb 0, noun 0, action 2 of 4
    verb = np.array([[[1, 2, 3, 4], [1, 2, 9, 9]]])
    noun = np.array([[[0, 0, 0, 0], [5, 6, 7, 8]]])
    result = evaluate_anticipation(verb, noun, true_verb, true_noun)
    assert (result.verb, result.noun, result.action, result.num_samples) == (0.0, 0.0, 0.5, 1)


def test_mean_over_samples_over_z():
    predicted = np.array([[[1, 2, 3, 4]], [[2, 3, 4, 1]]])
    assert edit_distance(predicted, np.array([[1, 2, 3, 4], [1, 2, 3, 4]])) == (0 + 2 / 4) / 2


def test_an_action_needs_the_pair_at_one_place():
    verb, noun = np.array([[[1, 2]]]), np.array([[[2, 1]]])
    # verbs right, nouns swapped: no position has both
    result = evaluate_anticipation(verb, noun, np.array([[1, 2]]), np.array([[1, 2]]))
    assert (result.verb, result.noun, result.action) == (0.0, 1.0, 1.0)


def test_unknown_predictions_match_nothing_and_no_samples_is_nan():
    assert edit_distance(np.full((1, 2, 4), -1), np.array([[0, 1, 2, 3]])) == 1.0
    assert math.isnan(edit_distance(np.empty((0, 5, 20), np.int64), np.empty((0, 20), np.int64)))


def test_random_predictions_are_at_chance():
    # the expectation over all 3^3 x 3^3 pairs, by the recursion
    sequences = list(product(range(3), repeat=3))
    expected = np.mean([_recursion(a, b) for a in sequences for b in sequences]) / 3
    random = np.random.default_rng(1)
    values = np.array(
        [edit_distance(random.integers(3, size=(40, 1, 3)), random.integers(3, size=(40, 3))) for _ in range(100)]
    )
    assert abs(values.mean() - expected) < 3.29 * values.std() / 10


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((2, 1, 3), int), np.zeros((2, 4), int), "must be"),
        (np.zeros((2, 0, 3), int), np.zeros((2, 3), int), "must be"),
        (np.zeros((1, 1, 2), int), np.array([[0, -1]]), "negative"),
    ],
)
def test_bad_input_is_refused(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        edit_distance(predicted, truth)


def test_verbs_and_nouns_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        evaluate_anticipation(
            np.zeros((1, 2, 3), int), np.zeros((1, 1, 3), int), np.zeros((1, 3), int), np.zeros((1, 3), int)
        )
