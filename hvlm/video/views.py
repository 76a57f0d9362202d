"""What an encoder wants to see: sampled frames, cut into clips, resized and cropped."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from hvlm.config import Config, require
from hvlm.video.sampling import SamplingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameView(Config):
    """The input of an encoder.

    Row i of the features is made of samples [i * clip_stride, i * clip_stride + clip_frames). A video with fewer
    samples than one clip gives one row, its last sample repeated; otherwise an incomplete clip at the end gives no row.

    Args:
        resize: (height, width), or one number for the shorter side (the other is rounded down, as torchvision does).
        crop: side of the square cut from the centre, at most the resized sides.
        interpolation: the antialiased filter.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    clip_frames: int = 1
    clip_stride: int = 1
    resize: tuple[int, int] | int = 224
    crop: int = 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        shorter = self.resize if isinstance(self.resize, int) else min(self.resize)
        for name, value in (("clip_frames", self.clip_frames), ("clip_stride", self.clip_stride), ("crop", self.crop)):
            require(value >= 1, what=f"view.{name}", got=value, expected="1 or more", do=f"set {name} to 1 or more")
        require(
            self.crop <= shorter,
            what="view.crop",
            got=f"{self.crop} from frames resized to {self.resize}",
            expected="a crop no larger than the resized frame",
            do=f"set crop to at most {shorter} or raise resize",
        )
        require(
            self.sampling.kind != "spans" or self.clip_stride >= self.clip_frames,
            what="view.clip_stride with sampling.kind: spans",
            got=self.clip_stride,
            expected=f"at least clip_frames={self.clip_frames}: rows are left out, so no two may share frames",
            do=f"set clip_stride to {self.clip_frames} or more, or sampling.kind: fps",
        )


def num_rows(num_samples: int, view: FrameView) -> int:
    """How many feature rows `num_samples` sampled frames give."""
    if num_samples == 0:
        return 0
    return max(1, (num_samples - view.clip_frames) // view.clip_stride + 1)


def cut_clips(frames: npt.NDArray[np.uint8], rows: int, view: FrameView) -> npt.NDArray[np.uint8]:
    """Clips (rows, clip_frames, H, W, 3) of decoded frames (F, H, W, 3), F as planned for `rows` rows.

    A read-only window on the same memory: overlapping clips cost nothing.
    """
    stride = min(view.clip_stride, view.clip_frames)
    windows = np.lib.stride_tricks.sliding_window_view(frames, view.clip_frames, axis=0)[::stride][:rows]
    return np.moveaxis(windows, -1, 1)
