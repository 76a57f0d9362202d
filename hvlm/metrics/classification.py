"""Video classification metrics by the official untrimmed rule, and the k-nearest-neighbour classifier.

Shapes: N videos, C classes, D width, Q queries. A video may carry several labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.average_precision import average_precision, interpolated_average_precision

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """Scores of one classifier on one split, as fractions; NaN where nothing could be counted."""

    ap_per_class: Floats
    mean_ap: float
    hit_at_1: float
    hit_at_3: float
    top_1_single_label: float
    num_videos: int
    num_single_label: int


def evaluate_classification(scores_NC: Floats, labels_NC: Bools) -> ClassificationResult:
    """Return mAP, Hit@1, Hit@3 (any true label among the best 3) and top-1 on the videos with exactly one label.

    Videos without a label count as negatives in mAP and are left out of the hits.

    Raises:
        ValueError: shapes differ or a score is NaN.
    """
    _check(scores_NC, labels_NC)
    num_labels = labels_NC.sum(axis=1)
    single = num_labels == 1
    ap_per_class = average_precision_per_class(scores_NC, labels_NC)
    return ClassificationResult(
        ap_per_class=ap_per_class,
        mean_ap=mean_of_present(ap_per_class),
        hit_at_1=hit_at_k(scores_NC, labels_NC, 1),
        hit_at_3=hit_at_k(scores_NC, labels_NC, 3),
        top_1_single_label=hit_at_k(scores_NC[single], labels_NC[single], 1),
        num_videos=int((num_labels > 0).sum()),
        num_single_label=int(single.sum()),
    )


def average_precision_per_class(scores_NC: Floats, labels_NC: Bools) -> Floats:
    """Return (C,) interpolated AP; NaN for a class that no video has.

    Source: ActivityNet evaluation toolkit, untrimmed video classification.
    """
    _check(scores_NC, labels_NC)
    counts = labels_NC.sum(axis=0)
    return np.array(
        [
            interpolated_average_precision(scores_NC[:, c], labels_NC[:, c], int(counts[c]))
            for c in range(labels_NC.shape[1])
        ]
    )


def charades_mean_ap(scores_NC: Floats, labels_NC: Bools) -> tuple[float, int]:
    """Return (mAP over the classes that some video has, number of classes that none has).

    mAP is NaN when all classes are absent.

    Args:
        scores_NC: similarity of each video with each class, 157 for Charades.
        labels_NC: True where the video shows the class; a video without any label is ranked last in every class.

    Raises:
        ValueError: shapes differ or a score is NaN.

    Source: Charades evaluation (plain, not interpolated AP); its mean over classes is NaN with a single absent class.
    """
    _check(scores_NC, labels_NC)
    ranked_NC = np.where(labels_NC.any(axis=1, keepdims=True), scores_NC, -np.inf)
    counts_C = labels_NC.sum(axis=0)
    ap_C = np.array(
        [average_precision(ranked_NC[:, c], labels_NC[:, c], int(counts_C[c])) for c in range(labels_NC.shape[1])]
    )
    return mean_of_present(ap_C), int((counts_C == 0).sum())


def mean_of_present(values_C: Floats) -> float:
    """Return the mean over the entries that are not NaN; NaN when there are none."""
    present = values_C[~np.isnan(values_C)]
    return float(present.mean()) if present.size else float("nan")


def hit_at_k(scores_NC: Floats, labels_NC: Bools, k: int) -> float:
    """Return the share of labelled videos with *any* true label among the k best classes.

    Ties are counted pessimistically: a wrong class of equal score stands before the right one.
    Returns NaN when no video has a label.
    """
    _check(scores_NC, labels_NC)
    labelled = labels_NC.any(axis=1)
    if not labelled.any():
        return float("nan")
    scores, labels = scores_NC[labelled], labels_NC[labelled]
    best_true = np.where(labels, scores, -np.inf).max(axis=1, keepdims=True)
    wrong_before = ((scores >= best_true) & ~labels).sum(axis=1)
    return float((wrong_before < k).mean())


def knn_scores(
    train_ND: Floats, train_labels_NC: Bools, query_QD: Floats, *, k: int = 20, temperature: float = 0.07
) -> Floats:
    """Return (Q, C) class scores: cosine neighbours vote with weight exp(cos / temperature), as a share of all weights.

    `k` shrinks to N when there are fewer training videos. Equal neighbours at rank k: the earlier row is taken.

    Raises:
        ValueError: no training rows, or widths differ.
    Source: Wu et al., arXiv 1805.01978, section 3.4 (weighted k-NN, temperature 0.07).
    """
    if len(train_ND) == 0 or train_ND.shape[1] != query_QD.shape[1] or len(train_ND) != len(train_labels_NC):
        shapes = f"train {train_ND.shape}, labels {train_labels_NC.shape}, query {query_QD.shape}"
        raise ValueError(f"k-NN needs training rows of the queries' width: {shapes}")
    cosine_QN = unit_rows(query_QD) @ unit_rows(train_ND).T
    nearest_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, : min(k, len(train_ND))]
    weight_QK = np.exp((np.take_along_axis(cosine_QN, nearest_QK, axis=1) - 1.0) / temperature)
    votes_QC = np.einsum("qk,qkc->qc", weight_QK, train_labels_NC[nearest_QK].astype(np.float64))
    return np.asarray(votes_QC / weight_QK.sum(axis=1, keepdims=True), dtype=np.float64)


def class_separation(embedding_ND: Floats, label_N: NDArray[np.int64]) -> dict[str, float]:
    """Return `intra` = mean (1 - cos) to the own class centroid, `inter` = mean (1 - cos) between centroids,
    `separation` = inter - intra.

    One label per row. `inter` and `separation` are NaN with fewer than 2 classes.
    """
    unit_ND = unit_rows(embedding_ND)
    classes = np.unique(label_N)
    centroid_CD = (
        unit_rows(np.stack([unit_ND[label_N == c].mean(axis=0) for c in classes]))
        if len(classes)
        else np.empty((0, unit_ND.shape[1]))
    )
    if len(classes) == 0:
        return dict.fromkeys(("intra", "inter", "separation"), float("nan"))
    own_N = np.searchsorted(classes, label_N)
    intra = float(np.mean(1.0 - np.sum(unit_ND * centroid_CD[own_N], axis=1)))
    above = np.triu_indices(len(classes), k=1)
    inter = float(np.mean(1.0 - (centroid_CD @ centroid_CD.T)[above])) if len(classes) > 1 else float("nan")
    return {"intra": intra, "inter": inter, "separation": inter - intra}


def unit_rows(values_ND: NDArray[np.floating]) -> Floats:
    """Return float64 rows of length 1; a zero row stays zero."""
    values = np.asarray(values_ND, dtype=np.float64)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1.0), dtype=np.float64)


def _check(scores_NC: Floats, labels_NC: Bools) -> None:
    if scores_NC.shape != labels_NC.shape or scores_NC.ndim != 2:
        raise ValueError(f"scores {scores_NC.shape} and labels {labels_NC.shape} must be (N, C)")
    if np.isnan(scores_NC).any():
        raise ValueError("a score is NaN")
