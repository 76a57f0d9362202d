"""Text <-> video retrieval: recall at k and median rank, with several right answers per query.

Equal texts are one group: any video of the group is a right answer. Where texts are the candidates, give each
distinct one once: copies of a wrong text would count as several mistakes. Ties are counted pessimistically: every wrong
candidate with the same similarity stands before the right one, so constant embeddings score like the worst guess, never
like the best.
Shapes: Q queries, N candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """Recall at 1, 5 and 10 as fractions and the median rank (1 is best); NaN without queries."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    num_queries: int
    num_candidates: int


def best_ranks(
    similarity_QN: NDArray[np.floating], query_group_Q: NDArray[np.int64], candidate_group_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (Q,) the rank (from 1) of the best-placed right answer of each query.

    Args:
        similarity_QN: higher is closer.
        query_group_Q: group of each query.
        candidate_group_N: group of each candidate; equal group = right answer.

    Raises:
        ValueError: shapes differ, a similarity is NaN, or a query has no right answer among the candidates.
    """
    if similarity_QN.shape != (len(query_group_Q), len(candidate_group_N)):
        raise ValueError(f"similarity {similarity_QN.shape} must be ({len(query_group_Q)}, {len(candidate_group_N)})")
    if np.isnan(similarity_QN).any():
        raise ValueError("a similarity is NaN")
    right_QN = query_group_Q[:, None] == candidate_group_N[None, :]
    if not right_QN.any(axis=1).all():
        raise ValueError(f"{int((~right_QN.any(axis=1)).sum())} queries have no right answer among the candidates")
    if len(query_group_Q) == 0:
        return np.empty(0, dtype=np.int64)
    best_right_Q1 = np.where(right_QN, similarity_QN, -np.inf).max(axis=1, keepdims=True)
    wrong_before_Q = ((similarity_QN >= best_right_Q1) & ~right_QN).sum(axis=1)
    return np.asarray(1 + wrong_before_Q, dtype=np.int64)


def summarise_ranks(rank_Q: NDArray[np.int64], num_candidates: int) -> RetrievalResult:
    """Return recall at 1, 5, 10 and the median rank."""
    recalls = {k: float((rank_Q <= k).mean()) if len(rank_Q) else float("nan") for k in KS}
    median = float(np.median(rank_Q)) if len(rank_Q) else float("nan")
    return _result(recalls, median, (len(rank_Q), num_candidates))


def _result(recalls: dict[int, float], median_rank: float, counts: tuple[int, int]) -> RetrievalResult:
    return RetrievalResult(
        recalls[1], recalls[5], recalls[10], median_rank, num_queries=counts[0], num_candidates=counts[1]
    )


def chance_retrieval(query_group_Q: NDArray[np.int64], candidate_group_N: NDArray[np.int64]) -> RetrievalResult:
    """Return the expectation of a random order of the candidates, exactly.

    With p right answers among N, P(hit at k) = 1 - C(N-p, k) / C(N, k); `median_rank` is the median over queries of the
    expected best rank (N + 1) / (p + 1).
    """
    num_candidates = len(candidate_group_N)
    groups, counts = np.unique(candidate_group_N, return_counts=True)
    if len(query_group_Q) == 0:
        return _result(dict.fromkeys(KS, float("nan")), float("nan"), (0, num_candidates))
    count_of = dict(zip(groups.tolist(), counts.tolist(), strict=True))
    right_Q = np.array([count_of.get(int(group), 0) for group in query_group_Q])
    recalls = {k: float(np.mean([_chance_hit(num_candidates, int(p), k) for p in right_Q])) for k in KS}
    median = float(np.median((num_candidates + 1) / (right_Q + 1)))
    return _result(recalls, median, (len(right_Q), num_candidates))


def _chance_hit(num_candidates: int, num_right: int, k: int) -> float:
    if k > num_candidates - num_right:
        return 1.0 if num_right else 0.0
    wrong = num_candidates - num_right
    log_miss = (
        gammaln(wrong + 1) - gammaln(wrong - k + 1) - gammaln(num_candidates + 1) + gammaln(num_candidates - k + 1)
    )
    return float(1.0 - np.exp(log_miss))
