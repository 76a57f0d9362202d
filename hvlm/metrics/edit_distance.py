"""Edit distance of anticipated action sequences (Ego4D long-term anticipation); lower is better.

The distance is Levenshtein's: insert, delete, substitute, each 1. The benchmark's text says Damerau-Levenshtein, its
code calls a plain Levenshtein; they differ where two neighbours are swapped (here 2, there 1).
Shapes: N samples, K sequences predicted for a sample, Z future actions, P rows of the predicted sequence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AnticipationResult:
    """ED@Z of verbs, nouns and actions, each in [0, 1]; NaN without samples."""

    verb: float
    noun: float
    action: float
    num_samples: int


def evaluate_anticipation(
    verb_NKZ: Labels, noun_NKZ: Labels, true_verb_NZ: Labels, true_noun_NZ: Labels
) -> AnticipationResult:
    """Return ED@Z: the mean over samples of the smallest distance among the K sequences, over Z.

    The best sequence is chosen for verbs, nouns and actions apart. An action matches when verb and noun of the same
    sequence match. A negative predicted label means "unknown" and matches nothing.

    Raises:
        ValueError: shapes differ, K or Z is 0, or a true label is negative.
    """
    same_verb_NKZZ = _matches(verb_NKZ, true_verb_NZ)
    same_noun_NKZZ = _matches(noun_NKZ, true_noun_NZ)
    if same_verb_NKZZ.shape != same_noun_NKZZ.shape:
        raise ValueError(f"verbs {verb_NKZ.shape} and nouns {noun_NKZ.shape} must have one shape")
    return AnticipationResult(
        verb=_at_best(same_verb_NKZZ),
        noun=_at_best(same_noun_NKZZ),
        action=_at_best(same_verb_NKZZ & same_noun_NKZZ),
        num_samples=len(verb_NKZ),
    )


def edit_distance(predicted_NKZ: Labels, truth_NZ: Labels) -> float:
    """Return ED@Z of one kind of label, as `evaluate_anticipation`.

    Raises:
        ValueError: as `evaluate_anticipation`.
    """
    return _at_best(_matches(predicted_NKZ, truth_NZ))


def levenshtein(same_XPZ: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (X...) the Levenshtein distance of each pair of sequences.

    Args:
        same_XPZ: bool (..., P, Z), True where element p of the first equals element z of the second.

    Source: Wagner & Fischer 1974; row p of the table is found for all pairs at once.
    """
    *pairs, num_rows, num_columns = same_XPZ.shape
    column = np.arange(num_columns + 1)
    above = np.broadcast_to(column, (*pairs, num_columns + 1))
    for row in range(num_rows):
        reached = np.empty_like(above)
        reached[..., 0] = row + 1
        # Delete, or substitute where the elements differ ...
        reached[..., 1:] = np.minimum(above[..., 1:] + 1, above[..., :-1] + ~same_XPZ[..., row, :])
        # ... and then any number of inserts: min over z' <= z of reached[z'] + (z - z').
        above = np.minimum.accumulate(reached - column, axis=-1) + column
    return np.asarray(above[..., -1], dtype=np.int64)


def _matches(predicted_NKZ: Labels, truth_NZ: Labels) -> NDArray[np.bool_]:
    shape = predicted_NKZ.shape
    if len(shape) != 3 or truth_NZ.shape != (shape[0], shape[2]) or 0 in shape[1:]:
        raise ValueError(
            f"predictions {shape} and truth {truth_NZ.shape} must be (N, K, Z) and (N, Z), K and Z above 0"
        )
    if (truth_NZ < 0).any():
        raise ValueError("a true label is negative; leave samples without a known future out")
    return np.asarray(predicted_NKZ[..., :, None] == truth_NZ[:, None, None, :], dtype=np.bool_)


def _at_best(same_NKZZ: NDArray[np.bool_]) -> float:
    if len(same_NKZZ) == 0:
        return float("nan")
    return float((levenshtein(same_NKZZ).min(axis=1) / same_NKZZ.shape[-1]).mean())
