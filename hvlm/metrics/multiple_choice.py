"""Multiple-choice accuracy (EgoMCQ, SummaryMCQ, ShuffleMCQ) with its interval.

A question's credit is 1 for a hit and 0 for a miss. Two rules for ties: `first` is the official argmax, for files that
fix the order of the options; `share` gives a right option within 1e-5 of the maximum 1 / (number tied), for ShuffleMCQ,
where an order-blind model has five equal scores and argmax would report float noise instead of chance.
Shapes: Q questions, O options, S permutation seeds.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TieRule = Literal["first", "share"]

TIE_TOLERANCE = 1e-5
INTER, INTRA = 1, 2  # the `types` of egomcq.json: options from other videos, or from the query's own video
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ChoiceAccuracy:
    """Mean credit in [0, 1] with its Wilson 95 % interval; NaN without questions.

    `num_tied` counts the questions whose right option is within 1e-5 of the maximum together with a wrong one: where
    it is not small, the accuracy under the rule `first` says nothing.
    """

    accuracy: float
    low: float
    high: float
    num_questions: int
    num_tied: int


@dataclass(frozen=True, slots=True)
class EgoMcqResult:
    """Accuracy by type of question; chance is 0.2 for each."""

    inter: ChoiceAccuracy
    intra: ChoiceAccuracy


def question_credit(score_QO: NDArray[np.floating], answer_Q: NDArray[np.int64], ties: TieRule = "first") -> Floats:
    """Return (Q,) the credit of each question, in [0, 1].

    Args:
        score_QO: similarity of the query with each option, higher is closer.
        answer_Q: index of the right option.
        ties: `first` = the lowest index of the maximum is the prediction; `share` = see the module.

    Raises:
        ValueError: shapes differ, a score is NaN, or an answer is no index of an option.
    """
    _check(score_QO, answer_Q)
    if ties == "share":
        near_QO = _near_maximum(score_QO)
        right_Q = np.take_along_axis(near_QO, answer_Q[:, None], axis=1)[:, 0]
        return np.asarray(right_Q / np.maximum(near_QO.sum(axis=1), 1), dtype=np.float64)
    if len(answer_Q) == 0:
        return np.empty(0)
    return np.asarray(score_QO.argmax(axis=1) == answer_Q, dtype=np.float64)


def choice_accuracy(
    score_QO: NDArray[np.floating], answer_Q: NDArray[np.int64], ties: TieRule = "first"
) -> ChoiceAccuracy:
    """Return the accuracy over all questions; this is SummaryMCQ with the scores of summaries against segments.

    Raises:
        ValueError: as `question_credit`.
    """
    credit_Q = question_credit(score_QO, answer_Q, ties)
    return _summary(credit_Q, _answer_tied(score_QO, answer_Q))


def ego_mcq(score_QO: NDArray[np.floating], answer_Q: NDArray[np.int64], type_Q: NDArray[np.int64]) -> EgoMcqResult:
    """Return inter-video and intra-video accuracy by the official argmax.

    Args:
        score_QO: cosine of the narration with each of the clips.
        answer_Q: index of the right clip.
        type_Q: 1 = inter, 2 = intra, as in egomcq.json.

    Raises:
        ValueError: as `question_credit`, or a type other than 1 and 2.
    """
    _check(score_QO, answer_Q)
    if type_Q.shape != answer_Q.shape or not np.isin(type_Q, (INTER, INTRA)).all():
        raise ValueError(f"types {type_Q.shape} must be {answer_Q.shape} of 1 (inter) and 2 (intra)")
    inter_Q = type_Q == INTER
    return EgoMcqResult(
        inter=choice_accuracy(score_QO[inter_Q], answer_Q[inter_Q]),
        intra=choice_accuracy(score_QO[~inter_Q], answer_Q[~inter_Q]),
    )


def shuffle_credit(score_SQO: NDArray[np.floating], answer_SQ: NDArray[np.int64]) -> Floats:
    """Return (Q,) each question's credit under the rule `share`, averaged over the permutation seeds.

    The evidence for alignment is `comparison.paired_bootstrap(true text, wrong text)` of these, not their mean alone:
    part of ShuffleMCQ rewards "looks like a natural order" whatever the text.

    Raises:
        ValueError: as `question_credit`, or there is no seed.
    """
    if len(score_SQO) == 0 or len(score_SQO) != len(answer_SQ):
        raise ValueError(
            f"scores {score_SQO.shape} and answers {answer_SQ.shape} need 1 or more seeds, as many of both"
        )
    credits = [
        question_credit(score_QO, answer_Q, "share") for score_QO, answer_Q in zip(score_SQO, answer_SQ, strict=True)
    ]
    return np.asarray(np.mean(credits, axis=0), dtype=np.float64)


def shuffle_mcq(score_SQO: NDArray[np.floating], answer_SQ: NDArray[np.int64]) -> ChoiceAccuracy:
    """Return ShuffleMCQ: the mean of `shuffle_credit`; `num_tied` counts questions tied under any seed.

    The interval takes Q for the sample size, not S Q: further permutations of a question are no further questions.

    Raises:
        ValueError: as `shuffle_credit`.
    """
    credit_Q = shuffle_credit(score_SQO, answer_SQ)
    tied_SQ = [_answer_tied(score_QO, answer_Q) for score_QO, answer_Q in zip(score_SQO, answer_SQ, strict=True)]
    return _summary(credit_Q, np.any(tied_SQ, axis=0))


def wilson_interval(proportion: float, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return (low, high) of a proportion of `count` trials; (NaN, NaN) without trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if count == 0:
        return math.nan, math.nan
    shrink = 1.0 + z * z / count
    centre = (proportion + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(proportion * (1.0 - proportion) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _summary(credit_Q: Floats, tied_Q: NDArray[np.bool_]) -> ChoiceAccuracy:
    accuracy = float(credit_Q.mean()) if len(credit_Q) else math.nan
    low, high = wilson_interval(accuracy, len(credit_Q))
    return ChoiceAccuracy(accuracy, low, high, len(credit_Q), int(tied_Q.sum()))


def _near_maximum(score_QO: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(score_QO >= score_QO.max(axis=1, keepdims=True, initial=-np.inf) - TIE_TOLERANCE, dtype=np.bool_)


def _answer_tied(score_QO: NDArray[np.floating], answer_Q: NDArray[np.int64]) -> NDArray[np.bool_]:
    near_QO = _near_maximum(score_QO)
    return np.asarray(np.take_along_axis(near_QO, answer_Q[:, None], axis=1)[:, 0] & (near_QO.sum(axis=1) > 1))


def _check(score_QO: NDArray[np.floating], answer_Q: NDArray[np.int64]) -> None:
    if score_QO.ndim != 2 or answer_Q.shape != score_QO.shape[:1]:
        raise ValueError(f"scores {score_QO.shape} and answers {answer_Q.shape} must be (Q, O) and (Q,)")
    if np.isnan(score_QO).any():
        raise ValueError("a score is NaN")
    if ((answer_Q < 0) | (answer_Q >= score_QO.shape[1])).any():
        raise ValueError(f"an answer is no index of the {score_QO.shape[1]} options")
