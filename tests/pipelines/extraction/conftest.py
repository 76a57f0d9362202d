"""Small real videos and a small extraction config."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from infra.config_io import build_config
from pipelines.extraction.config import ExtractConfig

Config = Callable[..., ExtractConfig]


def write_video(path: Path, seconds: float = 2.0, fps: int = 10, seed: int = 0, moov_first: bool = False) -> Path:
    """Write an mp4 of moving noise."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (64, 96, 3), np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"} if moov_first else {}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number * 2, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with four good videos (one long enough for several segments), a zero-byte and a truncated one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"v{number}.mp4", seed=number)
    write_video(folder / "long one.mp4", seconds=5.0, seed=9)
    (folder / "empty.mp4").write_bytes(b"")
    whole = write_video(tmp_path / "whole.mp4", seconds=4.0, seed=7).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    return folder


@pytest.fixture
def config(videos: Path, tmp_path: Path) -> Config:
    """Make a config of both encoders over the folder; keyword arguments replace top-level values."""

    def make(**changes: Any) -> ExtractConfig:
        values: dict[str, Any] = {
            "store_uri": str(tmp_path / "store"),
            "source": {"uri": str(videos)},
            "encoders": {
                "clip": {
                    "kind": "clip",
                    "model": "jobs/configs/models/tiny_clip.json",
                    "pretrained": "random",
                    "sampling": {"kind": "fps", "fps": 4.0},
                },
                "c3d": {
                    "kind": "c3d",
                    "weights": "random",
                    "fps": 10.0,
                    "stride_frames": 8,
                    "width": 0.0625,
                    "fc_dim": 32,
                },
            },
            "decode": {"segment_s": 2.0},
            "resources": {"segments_per_batch": 2, "segments_per_tar": 2, "encoder_threads": 1},
        }
        return build_config(ExtractConfig, {**values, **changes}, origin="test")

    return make


@pytest.fixture
def c3d_config(config: Config) -> Config:
    """Make a config of C3D alone: for what does not depend on the encoder, as its workers start in half the time."""
    return partial(config, encoders={"c3d": config().encoders["c3d"]})
