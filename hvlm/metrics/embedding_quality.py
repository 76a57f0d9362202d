"""How well labels part in an embedding: silhouette and nearest-neighbour label purity.

They are taken in the original space and stand beside every embedding map: a map of two dimensions can show clusters
that are not there. Distance is 1 - cosine, as in retrieval.
Shapes: N rows, D width, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows

Floats = NDArray[np.float64]

# Equal vectors differ by some 1e-16 in a product of matrices; what is nearer than this is the same distance.
TIE_TOLERANCE = 1e-12
ROWS_AT_ONCE = 1024


def silhouette(embedding_ND: NDArray[np.floating], label_N: NDArray[np.int64]) -> float:
    """Return the mean over rows of (b - a) / max(a, b), in [-1, 1]; NaN with fewer than 2 classes.

    a is the mean distance to the others of the own class, b the smallest mean distance to another class. A row that is
    alone in its class counts 0, and so does one with a = b = 0 (all rows equal). With cosine distance the mean distance
    to a class follows from the class's sum, so no N x N matrix is made.

    Raises:
        ValueError: shapes differ or a value is not finite.

    Source: Rousseeuw 1987.
    """
    _check(embedding_ND, label_N)
    unit_ND = unit_rows(embedding_ND)
    classes, own_N = np.unique(label_N, return_inverse=True)
    if len(classes) < 2:
        return float("nan")
    size_C = np.bincount(own_N)
    sum_CD = np.zeros((len(classes), unit_ND.shape[1]))
    np.add.at(sum_CD, own_N, unit_ND)
    distance_NC = 1.0 - unit_ND @ sum_CD.T / size_C
    rows = np.arange(len(unit_ND))
    # The own class's sum holds the row itself, at distance 1 - 1 (or 1 - 0 for a zero row): take it out.
    to_self_N = 1.0 - np.sum(unit_ND * unit_ND, axis=1)
    own_size_N = size_C[own_N]
    within_N = (distance_NC[rows, own_N] * own_size_N - to_self_N) / np.maximum(own_size_N - 1, 1)
    distance_NC[rows, own_N] = np.inf
    nearest_N = distance_NC.min(axis=1)
    scale_N = np.maximum(within_N, nearest_N)
    counted_N = (own_size_N > 1) & (scale_N > TIE_TOLERANCE)
    value_N = np.divide(nearest_N - within_N, scale_N, out=np.zeros(len(unit_ND)), where=counted_N)
    return float(value_N.mean())


def neighbour_purity(embedding_ND: NDArray[np.floating], label_N: NDArray[np.int64], k: int = 10) -> float:
    """Return the mean share of a row's k nearest other rows that carry its label; NaN with fewer than 2 rows.

    `k` shrinks to N - 1. Rows that tie for the last places share them, so equal embeddings score `chance_purity` and
    not what the order of the rows happens to give.

    Raises:
        ValueError: shapes differ, a value is not finite, or k is below 1.
    """
    _check(embedding_ND, label_N)
    if k < 1:
        raise ValueError(f"k = {k} must be 1 or more")
    if len(label_N) < 2:
        return float("nan")
    k = min(k, len(label_N) - 1)
    unit_ND = unit_rows(embedding_ND)
    shares = [
        _purity_of_rows(unit_ND, label_N, np.arange(first, min(first + ROWS_AT_ONCE, len(label_N))), k)
        for first in range(0, len(label_N), ROWS_AT_ONCE)
    ]
    return float(np.concatenate(shares).mean())


def chance_purity(label_N: NDArray[np.int64]) -> float:
    """Return the expected purity of random neighbours: the share of pairs of rows with equal labels."""
    count = len(label_N)
    if count < 2:
        return float("nan")
    size_C = np.unique(label_N, return_counts=True)[1]
    return float(np.sum(size_C * (size_C - 1)) / (count * (count - 1)))


def _purity_of_rows(unit_ND: Floats, label_N: NDArray[np.int64], rows_R: NDArray[np.int64], k: int) -> Floats:
    cosine_RN = unit_ND[rows_R] @ unit_ND.T
    cosine_RN[np.arange(len(rows_R)), rows_R] = -np.inf
    last_R1 = np.partition(cosine_RN, -k, axis=1)[:, [-k]]
    same_RN = label_N[rows_R, None] == label_N[None, :]
    nearer_RN = cosine_RN > last_R1 + TIE_TOLERANCE
    tied_RN = (cosine_RN >= last_R1 - TIE_TOLERANCE) & ~nearer_RN
    places_R = k - nearer_RN.sum(axis=1)
    shared_R = places_R * (same_RN & tied_RN).sum(axis=1) / tied_RN.sum(axis=1)
    return np.asarray(((same_RN & nearer_RN).sum(axis=1) + shared_R) / k, dtype=np.float64)


def _check(embedding_ND: NDArray[np.floating], label_N: NDArray[np.int64]) -> None:
    if embedding_ND.ndim != 2 or label_N.shape != embedding_ND.shape[:1]:
        raise ValueError(f"embeddings {embedding_ND.shape} and labels {label_N.shape} must be (N, D) and (N,)")
    if not np.isfinite(embedding_ND).all():
        raise ValueError("an embedding is not finite")
