"""Average precision: interpolated for ActivityNet's classification and localisation, plain for Charades.

Ties: rows of equal score enter together, so precision and recall are read only where the score changes. The value then
    depends neither on the order of the rows nor on luck, and constant scores give the share of positives (chance), not
    1.0 or 0.0. Without ties this is the ActivityNet toolkit's `interpolated_prec_rec`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interpolated_average_precision(scores: ArrayLike, relevant: ArrayLike, num_positives: int) -> float:
    """Return the area under the monotone envelope of precision over recall.

    Args:
        scores: (N,) confidence, higher is better.
        relevant: (N,) bool, True where the row is a true positive.
        num_positives: positives that exist, found or not; recall's denominator.

    Returns:
        AP in [0, 1]; NaN when `num_positives` is 0 (the class is left out of a mean); 0 when there are no rows.

    Raises:
        ValueError: shapes differ, a score is NaN, or more rows are relevant than positives exist.

    Source: VOC 2011 development kit, section 3.4.1; ActivityNet evaluation toolkit, `interpolated_prec_rec`.
    """
    true_positives, retrieved = _counts_at_score_changes(scores, relevant, num_positives)
    if num_positives == 0:
        return float("nan")
    precision = np.concatenate(([0.0], true_positives / retrieved, [0.0]))
    recall = np.concatenate(([0.0], true_positives / num_positives, [1.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * envelope[steps]))


def average_precision(scores: ArrayLike, relevant: ArrayLike, num_positives: int) -> float:
    """Return the mean over the positives of the precision at their rank; arguments and edge cases as above.

    Raises:
        ValueError: as `interpolated_average_precision`.

    Source: Charades evaluation, `map`; with ties it is scikit-learn's `average_precision_score`.
    """
    true_positives, retrieved = _counts_at_score_changes(scores, relevant, num_positives)
    if num_positives == 0:
        return float("nan")
    return float(np.sum(np.diff(true_positives, prepend=0) * (true_positives / retrieved)) / num_positives)


def _counts_at_score_changes(
    scores: ArrayLike, relevant: ArrayLike, num_positives: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True positives and rows down to each distinct score, best first."""
    score_n = np.asarray(scores, dtype=np.float64)
    relevant_n = np.asarray(relevant, dtype=bool)
    if score_n.shape != relevant_n.shape or score_n.ndim != 1:
        raise ValueError(f"scores {score_n.shape} and relevant {relevant_n.shape} must be (N,)")
    if np.isnan(score_n).any():
        raise ValueError("a score is NaN")
    if int(relevant_n.sum()) > num_positives:
        raise ValueError(f"{int(relevant_n.sum())} rows are relevant but only {num_positives} positives exist")
    order = np.argsort(-score_n, kind="stable")
    sorted_scores = score_n[order]
    last_of_tie = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], score_n.size > 0))
    return np.cumsum(relevant_n[order])[last_of_tie], last_of_tie + 1
