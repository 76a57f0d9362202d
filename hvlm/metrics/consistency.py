"""Temporal consistency and the figures that must stand beside it.

Temporal consistency (mean cosine of neighbouring rows) alone means nothing: a constant output scores a perfect 1.0. So
it is shown with the cosine of far-apart and of foreign rows, the contrast gap, the spread of the unit vectors, their
rank, and the contrast between pairs inside an annotated segment and pairs across its boundary.

Shapes: B videos, T rows, D width, S segments. Masks: True = real row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows

Floats = NDArray[np.float64]
# Far-apart pairs are counted exactly up to this many rows (16 M pairs); a longer video is thinned evenly first.
MAX_EXACT_ROWS = 4096


def temporal_consistency(hidden_BTD: NDArray[np.floating], mask_BT: NDArray[np.bool_]) -> Floats:
    """Return (B,) mean cosine of consecutive real rows; NaN for a video with fewer than 2 real rows.

    Padding content has no influence: rows outside the mask are set to 0 before anything is calculated.

    Source: specification section 8, TC_b = sum_i p_{b,i} cos(h_i, h_{i+1}) / sum_i p_{b,i} with p_{b,i} = m_{b,i}
        m_{b,i+1}.
    """
    unit_BTD = unit_rows(np.where(mask_BT[..., None], hidden_BTD, 0.0))
    pair_BT = mask_BT[:, 1:] & mask_BT[:, :-1]
    cosine_BT = np.sum(unit_BTD[:, 1:] * unit_BTD[:, :-1], axis=-1)
    counts_B = pair_BT.sum(axis=1)
    sums_B = cosine_BT.sum(axis=1)  # a pair with a padded row is one with a zero row: its cosine is 0
    return np.asarray(np.where(counts_B > 0, sums_B / np.maximum(counts_B, 1), np.nan), dtype=np.float64)


def distant_pair_cosine(
    hidden_TD: NDArray[np.floating], time_s_T: NDArray[np.floating], min_gap_s: float = 8.0
) -> float:
    """Return the mean cosine over all pairs of one video's rows that are at least `min_gap_s` apart; NaN when there is
    none.
    """
    step = -(-len(hidden_TD) // MAX_EXACT_ROWS)
    unit_TD, time_T = (
        unit_rows(hidden_TD[::step]) if len(hidden_TD) else unit_rows(hidden_TD),
        np.asarray(time_s_T, dtype=np.float64)[:: max(step, 1)],
    )
    far_TT = np.triu(np.abs(time_T[:, None] - time_T[None, :]) >= min_gap_s - 1e-9, k=1)
    if not far_TT.any():
        return float("nan")
    return float((unit_TD @ unit_TD.T)[far_TT].mean())


def cross_video_cosine(mean_unit_VD: Floats) -> float:
    """Return the mean cosine of two random rows of two different random videos, exactly.

    Args:
        mean_unit_VD: (V, D) mean of each video's unit rows: the mean over all row pairs of two videos is the dot
            product of these.

    Returns:
        the mean over the V (V - 1) ordered pairs of videos; NaN with fewer than 2 videos.
    """
    num_videos = len(mean_unit_VD)
    if num_videos < 2:
        return float("nan")
    total_D = mean_unit_VD.sum(axis=0)
    return float((total_D @ total_D - np.sum(mean_unit_VD * mean_unit_VD)) / (num_videos * (num_videos - 1)))


@dataclass(slots=True)
class UnitMoments:
    """Sums of unit rows from which spread and rank follow exactly; adding two is the same as having seen both sets of
    rows.
    """

    count: int
    sum_D: Floats
    outer_DD: Floats

    @classmethod
    def of(cls, hidden_ND: NDArray[np.floating]) -> "UnitMoments":
        """Return the sums of (N, D) real rows."""
        unit_ND = unit_rows(hidden_ND)
        return cls(len(unit_ND), unit_ND.sum(axis=0), unit_ND.T @ unit_ND)

    def __add__(self, other: "UnitMoments") -> "UnitMoments":
        return UnitMoments(self.count + other.count, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD)

    def covariance(self) -> Floats:
        """Return the (D, D) biased covariance of the unit rows."""
        mean_D = self.sum_D / self.count
        return np.asarray(self.outer_DD / self.count - np.outer(mean_D, mean_D), dtype=np.float64)


def unit_std(moments: UnitMoments) -> float:
    """Return sqrt(D) times the channel mean of the deviation of unit rows: 1 for an isotropic cloud, 0 when collapsed;
    NaN without rows.
    """
    if moments.count == 0:
        return float("nan")
    variance_D = np.clip(np.diag(moments.covariance()), 0.0, None)
    return float(np.sqrt(len(variance_D)) * np.mean(np.sqrt(variance_D)))


def effective_rank(moments: UnitMoments) -> float:
    """Return exp(entropy of the shares of variance) of the centred unit rows, between 1 and D; NaN with fewer than 2
    rows or no spread.

    Source: Roy & Vetterli 2007, with shares p = s^2 / sum s^2 of the singular values s of the centred unit rows.
    """
    if moments.count < 2:
        return float("nan")
    eigenvalues = np.clip(np.linalg.eigvalsh(moments.covariance()), 0.0, None)
    total = eigenvalues.sum()
    if total <= 1e-12:  # float64 residue of identical rows, not a direction
        return float("nan")
    shares = eigenvalues[eigenvalues > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


@dataclass(frozen=True, slots=True)
class BoundaryPairs:
    """Sums of consecutive cosines: pairs inside one annotated segment, and pairs with an annotated boundary between
    them.
    """

    inside_sum: float = 0.0
    num_inside: int = 0
    across_sum: float = 0.0
    num_across: int = 0

    def __add__(self, other: "BoundaryPairs") -> "BoundaryPairs":
        return BoundaryPairs(
            self.inside_sum + other.inside_sum,
            self.num_inside + other.num_inside,
            self.across_sum + other.across_sum,
            self.num_across + other.num_across,
        )

    def contrast(self) -> float:
        """Return mean cosine inside segments minus mean cosine across boundaries; NaN when either kind of pair is
        missing.
        """
        if self.num_inside == 0 or self.num_across == 0:
            return float("nan")
        return self.inside_sum / self.num_inside - self.across_sum / self.num_across


def boundary_pairs(
    hidden_TD: NDArray[np.floating], centre_s_T: NDArray[np.floating], segments_S2: Floats
) -> BoundaryPairs:
    """Return the sums from which boundary contrast follows, for one video.

    Args:
        hidden_TD: real rows in time order.
        centre_s_T: middle of what each row covers, in seconds, ascending.
        segments_S2: annotated [start_s, end_s); a pair is `across` when a start or an end lies in (centre_i,
            centre_{i+1}],
            `inside` when no boundary does and both centres lie in one segment; pairs in the background are neither.
    """
    if len(hidden_TD) < 2 or len(segments_S2) == 0:
        return BoundaryPairs()
    unit_TD, centre_T = unit_rows(hidden_TD), np.asarray(centre_s_T, dtype=np.float64)
    cosine = np.sum(unit_TD[1:] * unit_TD[:-1], axis=1)
    bounds = np.unique(segments_S2)
    across = np.searchsorted(bounds, centre_T[1:], side="right") > np.searchsorted(bounds, centre_T[:-1], side="right")
    in_segment_TS = (centre_T[:, None] >= segments_S2[None, :, 0]) & (centre_T[:, None] < segments_S2[None, :, 1])
    inside = (in_segment_TS[1:] & in_segment_TS[:-1]).any(axis=1) & ~across
    return BoundaryPairs(float(cosine[inside].sum()), int(inside.sum()), float(cosine[across].sum()), int(across.sum()))
