"""Renders one script to one real video file with PyAV: H.264 with B-frames, in mp4 or Matroska, at a constant or
variable rate.

One encoder thread and no dates in the container: equal scripts and formats give equal bytes with the same libx264.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from hvlm.config import Config, require
from hvlm.synthetic.drawing import FramePainter
from hvlm.synthetic.world import VideoScript

# Both rates used here divide it: 90000 / 12 and 90000 * 1001 / 30000 are whole, so constant rates have exact pts.
TIME_BASE = Fraction(1, 90_000)
NTSC_RATE = Fraction(30_000, 1_001)
KEYFRAME_INTERVAL_S = 5
DROPPED_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureConfig(Config):
    """What most videos of the world look like; every `vary_every`-th has another container, rate or size (0: none)."""

    width_px: int = 128
    height_px: int = 96
    fps: int = 12
    crf: int = 28
    vary_every: int = 8

    def __post_init__(self) -> None:
        for name in ("width_px", "height_px"):
            value = getattr(self, name)
            # yuv420p halves both sides; libx264 refuses less than 16; one variation takes 10 px off.
            require(
                value % 2 == 0 and 32 <= value <= 4096,
                what=f"picture.{name}",
                got=value,
                expected="an even number, 32 to 4096",
                do="use e.g. 96",
            )
        require(
            1 <= self.fps <= 120 and 90_000 % self.fps == 0,
            what="picture.fps",
            got=self.fps,
            expected="1 to 120, a divisor of 90000",
            do="use e.g. 12",
        )
        require(0 <= self.crf <= 51, what="picture.crf", got=self.crf, expected="0 (lossless) to 51", do="use e.g. 28")
        require(
            self.vary_every >= 0, what="picture.vary_every", got=self.vary_every, expected="0 or more", do="use e.g. 8"
        )


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The container, size and timing of one file. `variable_rate` leaves out 30 % of the frames at random."""

    container: Literal["mp4", "matroska"]
    width: int
    height: int
    fps: Fraction
    crf: int
    variable_rate: bool = False

    @property
    def suffix(self) -> str:
        """The file name's ending."""
        return ".mp4" if self.container == "mp4" else ".mkv"


@dataclass(frozen=True, slots=True)
class RenderedVideo:
    """What was written: the displayed frames and the time from the first frame's start to the last one's end."""

    num_frames: int
    duration_s: float
    size_bytes: int


def format_of(index: int, picture: PictureConfig) -> VideoFormat:
    """Return the format of video number `index`: the usual one, or in turn one of five that real folders hold too."""
    usual = VideoFormat("mp4", picture.width_px, picture.height_px, Fraction(picture.fps), picture.crf)
    if picture.vary_every == 0 or (index + 1) % picture.vary_every != 0:
        return usual
    match (index // picture.vary_every) % 5:
        case 0:
            return replace(usual, variable_rate=True)
        case 1:
            return replace(usual, fps=NTSC_RATE)
        case 2:
            return replace(usual, container="matroska")
        case 3:
            return replace(usual, width=usual.height, height=usual.width)
        case _:
            # No multiple of 16, so that the coded picture is larger than the shown one.
            return replace(usual, width=usual.width - 10, height=usual.height - 6)


def rendered_duration_s(script: VideoScript, video_format: VideoFormat) -> float:
    """Return how long the file will be: a whole number of frames, at least one."""
    return float(_num_grid_frames(script, video_format) / video_format.fps)


def render_video(script: VideoScript, video_format: VideoFormat, path: Path) -> RenderedVideo:
    """Write the script's video to `path`, which appears only when it is whole.

    Raises:
        OSError: the folder is missing, not writable or full; nothing is left behind.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        num_frames = _encode(script, video_format, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return RenderedVideo(num_frames, rendered_duration_s(script, video_format), path.stat().st_size)


def _encode(script: VideoScript, video_format: VideoFormat, path: Path) -> int:
    painter = FramePainter(script, video_format.width, video_format.height)
    # faststart puts the header first, so that a file cut short still says what it should have held.
    # bitexact leaves out random ids and dates.
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if video_format.container == "mp4" else {})
    with av.open(str(path), "w", format=video_format.container, options=options) as container:
        stream = container.add_stream("libx264", rate=video_format.fps)
        stream.width, stream.height, stream.pix_fmt = video_format.width, video_format.height, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = TIME_BASE
        context.thread_count = 1
        context.max_b_frames = 2
        context.gop_size = round(KEYFRAME_INTERVAL_S * video_format.fps)
        context.options = {"preset": "ultrafast", "crf": str(video_format.crf)}
        num_frames = 0
        for pts, duration in _frame_times(script, video_format):
            frame = av.VideoFrame.from_ndarray(painter.draw(float(pts * TIME_BASE)), format="rgb24")
            frame.pts, frame.duration, frame.time_base = pts, duration, TIME_BASE
            container.mux(stream.encode(frame))
            num_frames += 1
        container.mux(stream.encode(None))
    return num_frames


def _num_grid_frames(script: VideoScript, video_format: VideoFormat) -> int:
    return max(1, round(script.duration_s * video_format.fps))


def _frame_times(script: VideoScript, video_format: VideoFormat) -> Iterator[tuple[int, int]]:
    """`(pts, duration)` of each frame in units of TIME_BASE; the durations add up to the video's duration."""
    count = _num_grid_frames(script, video_format)
    step = int(1 / (video_format.fps * TIME_BASE))
    kept = np.ones(count, dtype=np.bool_)
    if video_format.variable_rate:
        kept = np.random.default_rng([script.background.seed, 3]).random(count) >= DROPPED_SHARE
        # The first frame starts the video. The last six stay evenly spaced: mp4 stores the gap to the next *decoding*
        # time as a packet's duration, and with two B-frames a gap among the last five would move the end of the video
        # (seen in 5 of 50 files when only four were kept).
        kept[0] = True
        kept[-6:] = True
    starts = [int(index) for index in np.flatnonzero(kept)]
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield start * step, (end - start) * step
