"""Videos whose pixels say which frame they are: each frame carries its number as 16 black or white cells.

The picture is cut into 4 rows by 5 columns. The first column is a ramp (black to white from top to bottom) that tells
whether the frame stands upright; the other 16 cells are the bits of the frame number, least significant first.
"""

import struct
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from hvlm.video.index import VideoIndex
from hvlm.video.packets import FrameRequest

RAMP = (0, 85, 170, 255)
DECOY = 1000
TINT = np.array([1.0, 0.9, 0.8])  # so that a decoder which swaps colours differs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to encode. `pts` are in `time_base` units; frames are stored unrotated, as a camera does.

    `decoy` is the size of another video stream, whose numbers start at DECOY; it stands before the numbered one, or
    behind. The numbered stream alone has the default disposition (AVI knows none: there the first is taken).
    """

    pts: tuple[int, ...]
    time_base: Fraction = Fraction(1, 1000)
    codec: str = "libx264"
    size: tuple[int, int] = (160, 128)
    pix_fmt: str = "yuv420p"
    rotation: int = 0
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    decoy: tuple[int, int] | None = None
    decoy_first: bool = True


def draw_number(number: int, width: int, height: int) -> np.ndarray:
    """The picture of frame `number`: uint8 (height, width, 3)."""
    cells = np.zeros((4, 5), np.uint8)
    cells[:, 0] = RAMP
    bits = [(number >> bit) & 1 for bit in range(16)]
    cells[:, 1:] = np.array(bits, np.uint8).reshape(4, 4) * 255
    rows = np.arange(height) * 4 // height
    columns = np.arange(width) * 5 // width
    return (cells[rows][:, columns][:, :, None] * TINT).astype(np.uint8)


def read_number(frame: np.ndarray) -> int:
    """The number drawn in an upright frame; fails when the frame does not stand upright."""
    height, width = frame.shape[:2]
    rows = ((np.arange(4) + 0.5) * height / 4).astype(int)
    columns = ((np.arange(5) + 0.5) * width / 5).astype(int)
    cells = frame[rows][:, columns].mean(axis=2)
    assert np.abs(cells[:, 0] - np.array(RAMP)).max() < 40, f"not upright: the ramp reads {cells[:, 0]}"
    bits = (cells[:, 1:] > 127).astype(int).ravel()
    return int((bits << np.arange(16)).sum())


def write_video(path: Path, recipe: Recipe) -> Path:
    """Encode frames 0..len(pts)-1 of `recipe` and return `path`."""
    with av.open(str(path), "w", options=recipe.container_options) as container:
        added = [(recipe.decoy, 0, DECOY)] if recipe.decoy else []
        added.insert(len(added) if recipe.decoy_first else 0, (recipe.size, Disposition.default, 0))
        streams = [(_add_stream(container, recipe, size, default), first) for size, default, first in added]
        for number, pts in enumerate(recipe.pts):
            for stream, first in streams:
                container.mux(stream.encode(_draw_frame(first + number, pts, stream, recipe)))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    return path


def _add_stream(container: Any, recipe: Recipe, size: tuple[int, int], disposition: int) -> Any:
    stream = container.add_stream(recipe.codec, rate=Fraction(25), options=recipe.options)
    stream.width, stream.height, stream.pix_fmt = *size, recipe.pix_fmt
    stream.codec_context.time_base = recipe.time_base
    stream.time_base = recipe.time_base
    stream.codec_context.thread_count = 1
    stream.disposition = Disposition(disposition)
    if recipe.rotation:
        stream.set_display_rotation(recipe.rotation)
    return stream


def _draw_frame(number: int, pts: int, stream: Any, recipe: Recipe) -> av.VideoFrame:
    size = (stream.width, stream.height)
    picture = draw_number(number, *(size if recipe.rotation % 180 == 0 else size[::-1]))
    stored = np.ascontiguousarray(np.rot90(picture, -recipe.rotation // 90))
    frame = av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(format=recipe.pix_fmt)
    frame.pts, frame.time_base = pts, recipe.time_base
    return frame


X264 = {"g": "12", "bf": "3", "crf": "18", "preset": "veryfast"}
VP8 = {"g": "12", "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "10"}
MPEG4 = {"g": "12", "bf": "2", "q": "3"}
# Alternate reference frames: packets that show two frames or none.
VP9 = {"g": "12", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "10"}
X265 = "keyint=12:log-level=none:bframes=3"
CFR = tuple(range(0, 60 * 40, 40))
VFR = tuple(int(40 * k + 37 * (k // 7) + 11 * (k % 3)) for k in range(60))
AVI = Recipe(pts=tuple(range(60)), time_base=Fraction(1, 25), codec="mpeg4", options=MPEG4)
RECIPES: dict[str, tuple[str, Recipe]] = {
    "cfr": ("mp4", Recipe(pts=CFR, options={"g": "12", "bf": "0"})),
    "bframes": ("mp4", Recipe(pts=CFR, options=X264)),
    "bpyramid": ("mkv", Recipe(pts=CFR, options=X264 | {"x264-params": "b-pyramid=normal:keyint=15:scenecut=0"})),
    "opengop": ("mp4", Recipe(pts=CFR, options=X264 | {"x264-params": "open-gop=1:keyint=12:scenecut=0:bframes=3"})),
    "vfr": ("mp4", Recipe(pts=VFR, options=X264)),
    "first_pts": ("mkv", Recipe(pts=tuple(range(1500, 1500 + 60 * 40, 40)), options=X264)),
    "first_pts_mp4": ("mp4", Recipe(pts=tuple(range(1500, 1500 + 60 * 40, 40)), options=X264)),
    "ts": ("ts", Recipe(pts=CFR, options=X264)),
    "rate_29_97": (
        "mp4",
        Recipe(pts=tuple(range(0, 60 * 1001, 1001)), time_base=Fraction(1, 30000), options=X264),
    ),
    "rate_23_976": (
        "mkv",
        Recipe(pts=tuple(range(0, 60 * 1001, 1001)), time_base=Fraction(1, 24000), options=X264),
    ),
    "below_1_fps": ("mp4", Recipe(pts=tuple(range(0, 60 * 2500, 2500)), options=X264)),
    "vfr_webm": ("webm", Recipe(pts=VFR, codec="libvpx-vp9", options=VP9)),
    "rotated_90": ("mp4", Recipe(pts=CFR, options=X264, rotation=90)),
    "rotated_180": ("mp4", Recipe(pts=CFR, options=X264, rotation=180)),
    "rotated_270": ("mp4", Recipe(pts=CFR, options=X264, rotation=270)),
    "odd_size": ("mp4", Recipe(pts=CFR, codec="mpeg4", size=(161, 127), options={"g": "12", "q": "3"})),
    "odd_444": ("mkv", Recipe(pts=CFR, size=(163, 129), pix_fmt="yuv444p", options=X264)),
    "ten_bit": ("mp4", Recipe(pts=CFR, pix_fmt="yuv420p10le", options=X264)),
    "hevc": ("mp4", Recipe(pts=CFR, codec="libx265", options={"x265-params": X265})),
    "hevc_opengop": (
        "mp4",
        Recipe(pts=CFR, codec="libx265", options={"x265-params": f"{X265}:open-gop=1:scenecut=0"}),
    ),
    "hevc_ten_bit": ("mkv", Recipe(pts=CFR, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": X265})),
    "vp9": ("webm", Recipe(pts=CFR, codec="libvpx-vp9", options={"g": "12", "deadline": "realtime", "cpu-used": "8"})),
    "vp9_altref": ("webm", Recipe(pts=CFR, codec="libvpx-vp9", options=VP9)),
    "av1": ("mkv", Recipe(pts=CFR, codec="libsvtav1", options={"g": "12", "preset": "10"})),
    "vp8": ("webm", Recipe(pts=CFR, codec="libvpx", options=VP8)),
    "mpeg4_avi": ("avi", AVI),
    "two_streams_avi": ("avi", replace(AVI, decoy=(320, 256), decoy_first=False)),
    "two_streams": ("mp4", Recipe(pts=CFR, options=X264, decoy=(320, 256))),
    "two_streams_mkv": ("mkv", Recipe(pts=CFR, options=X264, decoy=(320, 256))),
    "mpeg4_bframes": ("mp4", Recipe(pts=CFR, codec="mpeg4", options=MPEG4)),
}


def cut_with_edit_list(path: Path, first: int, last: int = 0) -> Path:
    """Make the edit list of an MP4 of CFR hide its `first` and its `last` frames, as editing software does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    duration, media_time = struct.unpack_from(">Ii", data, at)
    struct.pack_into(">Ii", data, at, duration - (first + last) * 40, media_time + first * 640)
    path.write_bytes(data)
    return path


def lie_about_frames(path: Path, stated: int) -> Path:
    """Make the header of an AVI or an MP4 state another number of frames (the MP4: duration, too) than it holds."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".avi":
        struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, stated)  # dwLength of the stream header
    else:
        struct.pack_into(">I", data, data.index(b"stts") + 12, stated)  # so many frames have the first length
        struct.pack_into(">I", data, data.index(b"mdhd") + 20, stated * 640)  # duration
    path.write_bytes(data)
    return path


def write_audio(path: Path) -> Path:
    """A file with half a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for number in range(24):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def request_frames(index: VideoIndex, frame_index: list[int]) -> FrameRequest:
    """Ask for these frames, with all keyframes of the video as places to start."""
    wanted = np.array(frame_index, np.int64)
    seeks = np.flatnonzero(index.keyframes & ~np.bool_(index.counted)).astype(np.int64)
    return FrameRequest(
        path=index.path,
        stream_index=index.stream_index,
        rotation=index.rotation,
        frame_index=wanted,
        frame_pts=index.pts[wanted],
        seek_index=seeks,
        seek_pts=index.pts[seeks],
        counted=index.counted,
    )


def damage_frame(path: Path, number: int, kept_bytes: int = 4) -> Path:
    """Overwrite the packet of frame `number` of an MP4 (frame numbers in order of pts) with zeros after its length."""
    with av.open(str(path)) as container:
        packets = sorted((p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size)
    _, at, size = packets[number]
    data = bytearray(path.read_bytes())
    data[at + kept_bytes : at + size] = bytes(size - kept_bytes)
    path.write_bytes(data)
    return path
