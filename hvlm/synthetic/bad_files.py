"""Files that no decoder can turn into a video, to see quarantine at work: cut short, empty, and without a picture."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hvlm.synthetic.rendering import VideoFormat, render_video
from hvlm.synthetic.world import VideoScript

TRUNCATED_NAME = "bad-truncated.mp4"
EMPTY_NAME = "bad-empty.mp4"
AUDIO_ONLY_NAME = "bad-audio-only.mp4"
KEPT_SHARE = 0.6
AUDIO_RATE_HZ = 16_000
AUDIO_S = 5


def write_truncated(script: VideoScript, video_format: VideoFormat, path: Path) -> None:
    """Write an mp4 whose header is whole and promises all frames, and whose last 40 % of bytes are missing."""
    render_video(script, video_format, path)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * KEPT_SHARE))


def write_empty(path: Path) -> None:
    """Write a file of zero bytes."""
    path.write_bytes(b"")


def write_audio_only(path: Path) -> None:
    """Write a valid mp4 with five seconds of a 440 Hz tone and no video stream."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        with av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
            times_s = np.arange(AUDIO_S * AUDIO_RATE_HZ) / AUDIO_RATE_HZ
            tone = (0.3 * np.sin(2.0 * np.pi * 440.0 * times_s)).astype(np.float32)
            # AAC codes 1024 samples at a time.
            for start in range(0, tone.size, 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE_HZ, start, Fraction(1, AUDIO_RATE_HZ)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
