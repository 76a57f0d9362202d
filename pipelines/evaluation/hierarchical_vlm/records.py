"""What the evaluation keeps of one video after it was embedded: small enough to hold all videos on one machine.

Shapes: T rows of the video, N sampled rows, D width of a kind of features, L levels, P captions, E width of the joint
    space.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.consistency import BoundaryPairs
from hvlm.metrics.proposals import VideoSegments
from pipelines.evaluation.retrieval_group import TextSpace

Floats32 = NDArray[np.float32]
PROBE, HEAD = "probe", "head"
"""How segments are found: by a linear probe on rows, or by a localisation head on the nodes of the pyramid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRecord:
    """One kind of features (`ours` or `raw`) of one video.

    Args:
        video_D: the frozen video embedding that probes and k-NN read.
        rows_ND: rows sampled evenly over the video, those of `VideoRecord.sampled_N`.
        mean_unit_D: mean of the unit rows, from which cross-video cosine follows exactly.
        temporal_consistency: mean cosine of neighbouring rows; NaN with one row.
        distant_cosine: mean cosine of rows at least 8 s apart; NaN when the video is shorter.
        level_consistency: temporal consistency of pyramid levels 1, 2, ...; NaN where one node is left.
        boundary: sums of cosines inside segments and across their boundaries.
    """

    video_D: Floats32
    rows_ND: Floats32
    mean_unit_D: Floats32
    temporal_consistency: float
    distant_cosine: float
    level_consistency: tuple[float, ...]
    boundary: BoundaryPairs


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """One embedded video. `spaces` has `ours` when the model is aligned with text and `raw` when the store has CLIP
    features. `label_logits_C`: of the checkpoint's own classifier, where it has one.
    """

    key: str
    video_id: str
    split: str
    duration_s: float
    stride_s: float
    num_rows: int
    num_bad_rows: int
    sampled_N: NDArray[np.int64]
    centre_s_N: NDArray[np.float64]
    kinds: dict[str, KindRecord]
    spaces: dict[str, TextSpace]
    annotations: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)
    summary: str | None = None
    activity: str | None = None
    label_logits_C: Floats32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisedVideo:
    """The segments that were found in one video, by method (`PROBE`, `HEAD`) and kind of features; labels are class
    numbers without background.
    """

    key: str
    video_id: str
    segments: dict[str, dict[str, VideoSegments]]


def even_sample(count: int, limit: int) -> NDArray[np.int64]:
    """Return at most `limit` row numbers spread evenly over `count` rows, ends included; all of them when they fit."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))
