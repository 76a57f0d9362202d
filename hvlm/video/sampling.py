"""Which frames of a video are looked at: one specification by time, the same whatever decodes the frames."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hvlm.config import Config, require
from hvlm.video.index import VideoIndex

# Two times closer than this are the same instant: time bases are at most 1/90000 s or so, rounding of k / fps is 1e-16.
SAME_INSTANT_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig(Config):
    """Which frames.

    `fps`: the frame on screen at k / fps; `every_n`: frames 0, n, 2n; `uniform_n`: the centres of n equal spans;
    `keyframes`: the frames that the codec stored whole, wherever they lie: the fastest, as nothing else is decoded;
    `spans`: as `fps`, but only the rows whose time meets an annotated span.
    """

    kind: Literal["fps", "every_n", "uniform_n", "keyframes", "spans"] = "fps"
    fps: float = 1.0
    n: int = 0
    """of `every_n` and `uniform_n`, which need it; 0 elsewhere"""

    def __post_init__(self) -> None:
        require(0 < self.fps <= 1000, what="sampling.fps", got=self.fps, expected="(0, 1000]", do="set e.g. fps: 1.0")
        counted, timed = self.kind in ("every_n", "uniform_n"), self.kind in ("fps", "spans")
        require(
            self.n >= 1 if counted else self.n == 0,
            what="sampling.n",
            got=f"{self.n} with kind: {self.kind}",
            expected="1 or more" if counted else "no n",
            do="set e.g. n: 8" if counted else "leave n out, or choose kind: every_n or uniform_n",
        )
        require(
            timed or self.fps == 1.0,
            what="sampling.fps",
            got=f"{self.fps} with kind: {self.kind}",
            expected="no fps",
            do="leave fps out, or choose kind: fps",
        )


@dataclass(frozen=True, slots=True)
class FrameSamples:
    """Sampled frames in time order.

    Args:
        frame_index: int64 (N,), positions in presentation order; repeats where the grid is denser than frames.
        time_s: float64 (N,), nominal times in seconds since the first frame (the grid, not the pts).
        stride_s: seconds between two samples; of keyframes the mean, their distances differ.
        offset_s: time of the first sample.
    """

    frame_index: npt.NDArray[np.int64]
    time_s: npt.NDArray[np.float64]
    stride_s: float
    offset_s: float


def sample_frames(index: VideoIndex, sampling: SamplingConfig) -> FrameSamples:
    """The frames that `sampling` takes from `index`; at least one.

    The frame of a time is the one on screen then: the last whose pts is not after it. Of `spans` it is the whole grid:
    which rows are made of it follows from the rows' length too (see `plan_segments`).
    """
    if sampling.kind == "every_n":
        frames = np.arange(0, index.num_frames, sampling.n, dtype=np.int64)
        return FrameSamples(frames, index.times_s[frames], sampling.n / index.fps, 0.0)
    if sampling.kind == "keyframes":
        frames = np.flatnonzero(index.keyframes)
        frames = frames if len(frames) else np.zeros(1, np.int64)  # recordings with intra refresh mark none
        times_s = index.times_s[frames]
        return FrameSamples(frames, times_s, index.duration_s / len(frames), float(times_s[0]))
    if sampling.kind == "uniform_n":
        stride_s = index.duration_s / sampling.n
        times_s = (np.arange(sampling.n, dtype=np.float64) + 0.5) * stride_s
        return FrameSamples(_on_screen(index, times_s), times_s, stride_s, stride_s / 2)
    count = max(1, math.ceil((index.duration_s - SAME_INSTANT_S) * sampling.fps))
    times_s = np.arange(count, dtype=np.float64) / sampling.fps
    return FrameSamples(_on_screen(index, times_s), times_s, 1 / sampling.fps, 0.0)


def _on_screen(index: VideoIndex, times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    found = np.searchsorted(index.times_s, times_s + SAME_INSTANT_S, side="right") - 1
    return np.asarray(np.maximum(found, 0), dtype=np.int64)
