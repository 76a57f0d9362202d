"""Toy features with planted segments: a loss must not collapse on them, and a metric must find what was planted.

Each frame is the unit vector along `class_weight * class + background_weight * background + noise_weight * noise`,
where the class changes at segment boundaries, the background is drawn once per video and the noise once per frame.
The defaults were fitted to the raw-feature row of the collapse table (specification, section 2). Measured on 64 videos,
seed 0: temporal consistency 0.581, boundary contrast 0.262, unit-std 0.982, effective rank 28.5, frame probe 0.898.

Shapes: V videos, T frames (the longest video), D width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.config import Config, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(Config):
    """The toy world. Lengths count frames; the upper bounds are included."""

    num_classes: int = 10
    dim: int = 32
    min_frames: int = 30
    max_frames: int = 48
    min_segment_frames: int = 5
    max_segment_frames: int = 10
    class_weight: float = 0.5
    background_weight: float = 0.6
    noise_weight: float = 0.62

    def __post_init__(self) -> None:
        require(
            self.num_classes >= 2,
            what="toy.num_classes",
            got=self.num_classes,
            expected="at least 2",
            do="set e.g. num_classes: 10",
        )
        require(
            self.dim >= 2,
            what="toy.dim",
            got=self.dim,
            expected="at least 2",
            do="set e.g. dim: 32",
        )
        require(
            1 <= self.min_frames <= self.max_frames,
            what="toy.min_frames, toy.max_frames",
            got=(self.min_frames, self.max_frames),
            expected="1 <= min_frames <= max_frames",
            do="set e.g. 30 and 48",
        )
        require(
            1 <= self.min_segment_frames <= self.max_segment_frames,
            what="toy.min_segment_frames, toy.max_segment_frames",
            got=(self.min_segment_frames, self.max_segment_frames),
            expected="1 <= min_segment_frames <= max_segment_frames",
            do="set e.g. 5 and 10",
        )


@dataclass(frozen=True, slots=True)
class ToyFeatures:
    """Planted features of V videos padded to T frames.

    Attributes:
        features: float32 (V, T, D), unit vectors on real frames, 0 on padding.
        mask: bool (V, T), True = real, a prefix of True per video.
        labels: int64 (V, T), class of each frame in [0, num_classes), -1 on padding.
        boundaries: bool (V, T), True where frame t starts a new segment (never t = 0), so (t-1, t) crosses a boundary.
        class_vectors: float32 (num_classes, D), the planted unit class directions.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    boundaries: NDArray[np.bool_]
    class_vectors: NDArray[np.float32]


def toy_features(seed: int, num_videos: int = 64, config: ToyConfig | None = None) -> ToyFeatures:
    """Return planted toy features; equal arguments give bit-equal arrays.

    Args:
        seed: seeds classes, lengths, segments, backgrounds and noise.
        num_videos: V, at least 1.
        config: the toy world; None means `ToyConfig()`.

    Raises:
        UserError: `num_videos` below 1.

    Source: specification of the method, section 2 (toy run of the collapse table).
    """
    require(
        num_videos >= 1,
        what="num_videos",
        got=num_videos,
        expected="at least 1",
        do="ask for e.g. 64 toy videos",
    )
    toy = config or ToyConfig()
    rng = np.random.default_rng(seed)
    classes_CD = _unit(rng.standard_normal((toy.num_classes, toy.dim)))
    backgrounds_VD = _unit(rng.standard_normal((num_videos, toy.dim)))
    lengths_V = rng.integers(toy.min_frames, toy.max_frames + 1, num_videos)
    labels_VT = np.full((num_videos, int(lengths_V.max())), -1, dtype=np.int64)
    for video, length in enumerate(lengths_V):
        labels_VT[video, :length] = _segment_labels(rng, toy, int(length))
    mask_VT = labels_VT >= 0
    noise_VTD = _unit(rng.standard_normal((*labels_VT.shape, toy.dim)))
    mixed_VTD = (
        toy.class_weight * classes_CD[labels_VT]
        + toy.background_weight * backgrounds_VD[:, None]
        + toy.noise_weight * noise_VTD
    )
    boundaries_VT = np.zeros_like(mask_VT)
    boundaries_VT[:, 1:] = mask_VT[:, 1:] & (labels_VT[:, 1:] != labels_VT[:, :-1])
    return ToyFeatures(
        features=(_unit(mixed_VTD) * mask_VT[..., None]).astype(np.float32),
        mask=mask_VT,
        labels=labels_VT,
        boundaries=boundaries_VT,
        class_vectors=classes_CD.astype(np.float32),
    )


def _segment_labels(rng: np.random.Generator, toy: ToyConfig, length: int) -> NDArray[np.int64]:
    """Labels of one video: segments of random length, neighbours of different classes, the last one cut at `length`."""
    labels: list[int] = []
    label = int(rng.integers(toy.num_classes))
    while len(labels) < length:
        labels += [label] * int(rng.integers(toy.min_segment_frames, toy.max_segment_frames + 1))
        label = (label + int(rng.integers(1, toy.num_classes))) % toy.num_classes
    return np.asarray(labels[:length], dtype=np.int64)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
