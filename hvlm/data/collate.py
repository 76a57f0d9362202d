"""From the stored rows of single videos to padded tensors.

Shapes: B local batch, T frames (padded), I width of the features of all encoders, X width of the text features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EncoderRows:
    """What one encoder says of one video: features (T, D), the start of each row and the length of a row in seconds.

    `reach_s`: how far from its middle a row may stand for the video (see `SampleMeta.reach_s`).
    """

    features_TD: NDArray[Any]
    times_s: NDArray[np.float64]
    clip_s: float
    reach_s: float = math.inf


class VideoRows(NamedTuple):
    """All encoders' features of one video on one time grid.

    `features_TI` float32, finite; `times_s` float64 (T,), start of each row. `num_bad_rows`: rows left out because
    they held NaN or infinity.
    """

    features_TI: NDArray[np.float32]
    times_s: NDArray[np.float64]
    num_bad_rows: int


class TextRow(NamedTuple):
    """The text of one video: pooled features (X,), and a number that is equal for equal texts."""

    features_X: NDArray[np.float32]
    group: int


class Batch(NamedTuple):
    """A padded batch. `mask_BT`: True = real, a prefix of ones. Padded features and times are 0. `text_*` are None
    without text."""

    keys: list[str]
    features_BTI: Tensor
    times_BT: Tensor
    mask_BT: Tensor
    text_BX: Tensor | None
    text_group_B: Tensor | None
    num_bad_rows: int

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a copy to the GPU runs beside the computation."""
        return self._map(Tensor.pin_memory)

    def split(self, count: int) -> list["Batch"]:
        """Return the videos in `count` equal parts, each padded as the whole; the first one has the bad rows of all."""
        size = len(self.keys) // count
        parts = []
        for start in range(0, len(self.keys), size):
            rows = slice(start, start + size)
            part = self._map(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
            parts.append(part._replace(keys=self.keys[rows], num_bad_rows=0 if start else self.num_bad_rows))
        return parts

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            keys=self.keys,
            features_BTI=function(self.features_BTI),
            times_BT=function(self.times_BT),
            mask_BT=function(self.mask_BT),
            text_BX=None if self.text_BX is None else function(self.text_BX),
            text_group_B=None if self.text_group_B is None else function(self.text_group_B),
            num_bad_rows=self.num_bad_rows,
        )


def nearest_rows(times_s: NDArray[np.float64], wanted_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return, for each wanted time, the index of the nearest time; the earlier one on a tie.

    Args:
        times_s: (T,), ascending, at least one.
        wanted_s: (N,).
    """
    right = np.searchsorted(times_s, wanted_s).clip(1, max(1, len(times_s) - 1))
    if len(times_s) == 1:
        return np.zeros(len(wanted_s), np.int64)
    nearer_left = wanted_s - times_s[right - 1] <= times_s[right] - wanted_s
    result: NDArray[np.int64] = np.where(nearer_left, right - 1, right).astype(np.int64)
    return result


def join_encoders(parts: Sequence[EncoderRows], *, l2_normalise: bool = False) -> VideoRows:
    """Return the encoders' features side by side, on the time grid of the first.

    A row of the first encoder gets, from every other one, the row whose centre lies nearest to its own centre:
    nothing is blended, and strides may differ. Rows where another encoder has a gap are left out, and rows that hold
    NaN or infinity in any encoder, times too; when that leaves nothing, one zero row stands for the video.

    Args:
        parts: one per encoder, in the order of concatenation; a 1-D feature array is one row.
        l2_normalise: divide each encoder's row by its L2 norm; a zero row stays zero.
    """
    first = parts[0]
    centres_s = first.times_s + first.clip_s / 2
    columns, covered = [], np.ones(len(centres_s), np.bool_)
    for part in parts:
        features = np.atleast_2d(part.features_TD).astype(np.float32)
        if part is not first:
            part_s = part.times_s + part.clip_s / 2
            nearest = nearest_rows(part_s, centres_s)
            features = features[nearest]
            covered &= np.abs(part_s[nearest] - centres_s) <= part.reach_s + first.clip_s / 2
        columns.append(_unit_rows(features) if l2_normalise else features)
    joined = np.concatenate(columns, axis=1)
    finite = np.atleast_1d(np.isfinite(joined).all(axis=1))
    good, num_bad = finite & covered, int((covered & ~finite).sum())
    if good.all():
        return VideoRows(joined, first.times_s, 0)
    if not good.any():
        return VideoRows(np.zeros_like(joined[:1]), first.times_s[:1], num_bad)
    return VideoRows(joined[good], first.times_s[good], num_bad)


def collate(
    keys: Sequence[str], videos: Sequence[VideoRows], texts: Sequence[TextRow] | None, padded_rows: int
) -> Batch:
    """Return videos as one batch, padded with zeros to `padded_rows`.

    Raises:
        ValueError: a video with more rows, or another width.
    """
    width = videos[0].features_TI.shape[1]
    features = np.zeros((len(videos), padded_rows, width), np.float32)
    times = np.zeros((len(videos), padded_rows), np.float32)
    mask = np.zeros((len(videos), padded_rows), np.bool_)
    for i, video in enumerate(videos):
        rows = len(video.times_s)
        if rows > padded_rows or video.features_TI.shape != (rows, width):
            found = f"features {video.features_TI.shape} and {rows} times"
            raise ValueError(f"'{keys[i]}' has {found}; the batch has room for {padded_rows} x {width}")
        features[i, :rows], times[i, :rows], mask[i, :rows] = video.features_TI, video.times_s, True
    return Batch(
        keys=list(keys),
        features_BTI=torch.from_numpy(features),
        times_BT=torch.from_numpy(times),
        mask_BT=torch.from_numpy(mask),
        text_BX=None if texts is None else torch.from_numpy(np.stack([text.features_X for text in texts])),
        text_group_B=None if texts is None else torch.tensor([text.group for text in texts]),
        num_bad_rows=sum(video.num_bad_rows for video in videos),
    )


def _unit_rows(features_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(features_TD, axis=1, keepdims=True)
    return (features_TD / np.where(norms > 0, norms, 1)).astype(np.float32)
