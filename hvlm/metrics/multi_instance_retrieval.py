"""EPIC-KITCHENS multi-instance retrieval: mAP and nDCG against graded relevancy, in both directions.

The numbers are those of the official evaluation on any input. That fixes two things which a reader would not guess:
- Precision at k is the sum of the *graded* relevancy of the first k items over k, so an item of relevancy 0.5 above a
  fully relevant one raises it; only items of relevancy 1 are read off, and counted in the denominator. Pass
  `(relevancy == 1).astype(float)` for the strict rule, in which partly relevant items are wrong.
- Ties fall as `np.argsort` leaves them, and differently: mAP sorts the negated row ascending, nDCG sorts the row
  ascending and reverses it. Neither sort is stable, so the rows are sorted in the dtype in which they come. Where ties
  matter, say how many there are; constant similarities score what the order of the columns gives.
Queries that nothing answers are left out of the mean and counted (the official mean is NaN with a single one).
Shapes: V videos, S unique sentences, Q queries, N candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Floats = NDArray[np.float64]

DUAL_SOFTMAX_TEMPERATURE = 500.0


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """One direction; NaN when no query counts.

    `num_without_relevant` queries have no item of relevancy 1 and are not in `mean_ap`; `num_without_gain` have no item
    of relevancy above 0 and are not in `ndcg`.
    """

    mean_ap: float
    ndcg: float
    num_queries: int
    num_without_relevant: int
    num_without_gain: int


@dataclass(frozen=True, slots=True)
class MultiInstanceResult:
    """Both directions, and the average of the two that the leaderboard ranks by."""

    video_to_text: DirectionResult
    text_to_video: DirectionResult
    mean_ap: float
    ndcg: float


def evaluate_multi_instance(similarity_VS: NDArray[np.floating], relevancy_VS: Floats) -> MultiInstanceResult:
    """Return mAP and nDCG of videos against unique sentences.

    Args:
        similarity_VS: higher is closer; float.
        relevancy_VS: in [0, 1]; 1 = same verb and noun classes.

    Raises:
        ValueError: shapes differ, a similarity is NaN, or a relevancy is outside [0, 1].
    """
    video_to_text = _evaluate_direction(similarity_VS, relevancy_VS)
    text_to_video = _evaluate_direction(similarity_VS.T, relevancy_VS.T)
    return MultiInstanceResult(
        video_to_text,
        text_to_video,
        mean_ap=(video_to_text.mean_ap + text_to_video.mean_ap) / 2,
        ndcg=(video_to_text.ndcg + text_to_video.ndcg) / 2,
    )


def average_precisions(similarity_QN: NDArray[np.floating], relevancy_QN: Floats) -> Floats:
    """Return (Q,) sum over ranks k of a relevancy-1 item of (graded precision at k) / number of such items; NaN without
    one.

    Raises:
        ValueError: as `evaluate_multi_instance`.

    Source: EPIC-KITCHENS-100 multi-instance retrieval challenge, evaluation code (mAP).
    """
    _check(similarity_QN, relevancy_QN)
    ranked_QN = np.take_along_axis(relevancy_QN, np.argsort(-similarity_QN, axis=1), axis=1).astype(np.float64)
    relevant_QN = ranked_QN == 1
    precision_QN = np.cumsum(ranked_QN, axis=1) / np.arange(1, ranked_QN.shape[1] + 1)
    return _ratio((precision_QN * relevant_QN).sum(axis=1), relevant_QN.sum(axis=1))


def normalised_gains(similarity_QN: NDArray[np.floating], relevancy_QN: Floats) -> Floats:
    """Return (Q,) DCG of the first K_q items over that of the ideal order, K_q = items of relevancy above 0; NaN when
    K_q is 0.

    Raises:
        ValueError: as `evaluate_multi_instance`.

    Source: Järvelin & Kekäläinen 2002 with gain = relevancy; EPIC-KITCHENS-100 evaluation code (nDCG).
    """
    _check(similarity_QN, relevancy_QN)
    ranked_QN = np.take_along_axis(relevancy_QN, np.argsort(similarity_QN, axis=1)[:, ::-1], axis=1)
    ideal_QN = np.sort(relevancy_QN, axis=1)[:, ::-1]
    weight_QN = (ideal_QN > 0) / np.log2(np.arange(relevancy_QN.shape[1]) + 2)
    return _ratio((ranked_QN * weight_QN).sum(axis=1), (ideal_QN * weight_QN).sum(axis=1))


def dual_softmax(similarity_VS: NDArray[np.floating]) -> Floats:
    """Return similarities re-weighted over the *whole* test set; label every figure made from them "dual softmax".

    Each sentence's column is weighted by its softmax over the videos at temperature 500, then each video's row goes
    through a softmax over the sentences. It looks at all queries at once (transductive), so it is another task.

    Args:
        similarity_VS: raw dot products of video and text vectors, not cosines.

    Source: Cheng et al., arXiv 2109.04290, in the form of the EgoVLP and HierVL test scripts.
    """
    raw_VS = np.asarray(similarity_VS, dtype=np.float64)
    return np.asarray(softmax(softmax(raw_VS / DUAL_SOFTMAX_TEMPERATURE, axis=0) * raw_VS, axis=1), dtype=np.float64)


def _evaluate_direction(similarity_QN: NDArray[np.floating], relevancy_QN: Floats) -> DirectionResult:
    ap_Q, gain_Q = average_precisions(similarity_QN, relevancy_QN), normalised_gains(similarity_QN, relevancy_QN)
    lost_ap, lost_gain = int(np.isnan(ap_Q).sum()), int(np.isnan(gain_Q).sum())
    return DirectionResult(
        mean_ap=float(np.nanmean(ap_Q)) if lost_ap < len(ap_Q) else float("nan"),
        ndcg=float(np.nanmean(gain_Q)) if lost_gain < len(gain_Q) else float("nan"),
        num_queries=len(ap_Q),
        num_without_relevant=lost_ap,
        num_without_gain=lost_gain,
    )


def _ratio(part_Q: Floats, whole_Q: NDArray[np.number]) -> Floats:
    return np.divide(part_Q, whole_Q, out=np.full(len(part_Q), np.nan), where=whole_Q > 0)


def _check(similarity_QN: NDArray[np.floating], relevancy_QN: Floats) -> None:
    if similarity_QN.shape != relevancy_QN.shape or similarity_QN.ndim != 2:
        raise ValueError(f"similarity {similarity_QN.shape} and relevancy {relevancy_QN.shape} must be (Q, N)")
    if np.isnan(similarity_QN).any():
        raise ValueError("a similarity is NaN")
    if not ((relevancy_QN >= 0) & (relevancy_QN <= 1)).all():
        raise ValueError("a relevancy is NaN or outside [0, 1]")
