"""Files that are no whole video, each with the reason that quarantine has to give, and odd names for good ones."""

import gzip
import os
import socket
import struct
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hvlm.errors import Reason
from hvlm.synthetic.bad_files import write_audio_only
from tests.pipelines.extraction.conftest import write_video

Write = Callable[[Path], object]

GOOD_NAMES = [
    "plain.mp4",
    "a.b.c.mp4",
    "two  spaces.mp4",
    " leading space.mp4",
    "new\nline.mp4",
    "tab\tand 'quotes\".mp4",
    "-rf.mp4",
    "100%41.mp4",
    "日本語 é.mp4",
    "[x] {y} *?.mp4",
    f"{'long' * 60}.mp4",
    "matroska.mkv",
    "web.webm",
    "quick.mov",
]


def _cut(share: float, container: str = "mp4", seconds: float = 3.0, **options: str) -> Write:
    """The first part of a whole file."""

    def write(path: Path) -> None:
        whole = write_stream(path.with_suffix(f".whole.{container}"), seconds=seconds, **options)
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        whole.unlink()

    return write


def write_stream(
    path: Path, size: tuple[int, int] = (96, 64), seconds: float = 3.0, codec: str = "", **options: str
) -> Path:
    """Write moving noise, other noise for each name, in the container that the name's ending says."""
    codec = codec or {".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    picture = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number * 2, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _patched(old: bytes, new: bytes, container: str = "mp4") -> Write:
    """A whole file with some bytes of its headers replaced."""

    def write(path: Path) -> None:
        whole = write_stream(path.with_suffix(f".whole.{container}"))
        data = whole.read_bytes()
        whole.unlink()
        if old not in data:
            raise ValueError(f"{old!r} is not in the file")
        path.write_bytes(data.replace(old, new))

    return write


def _holed(first: float, last: float) -> Write:
    """A file whose index is whole and whose pictures are overwritten from one share of it to another."""

    def write(path: Path) -> None:
        whole = write_stream(path.with_suffix(".whole.mp4"), movflags="faststart")
        data = bytearray(whole.read_bytes())
        whole.unlink()
        start = data.index(b"mdat") + 4
        begin, end = (start + int((len(data) - start) * share) for share in (first, last))
        data[begin:end] = np.random.default_rng(1).bytes(end - begin)
        path.write_bytes(data)

    return write


def _wave(path: Path) -> None:
    with path.open("wb") as file, wave.open(file) as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))


def _no_frames(path: Path) -> None:
    """An AVI whose header promises pictures and that holds none."""
    write_stream(path, seconds=0.1)
    data = path.read_bytes()
    movi = data.index(b"movi")
    whole = data[: movi - 4] + struct.pack("<I", 4) + b"movi"
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])  # one that was cut would be truncated


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _text(content: str) -> Write:
    return lambda path: path.write_text(content)


BAD: dict[str, tuple[Write, Reason]] = {
    "empty.mp4": (lambda path: path.write_bytes(b""), Reason.UNREADABLE),
    "text.mp4": (_text("I am no video.\n" * 100), Reason.UNREADABLE),
    "error page.mp4": (_text("<!DOCTYPE html><html><body>404 Not Found</body></html>"), Reason.UNREADABLE),
    "zeros.mkv": (lambda path: path.write_bytes(bytes(50_000)), Reason.UNREADABLE),
    "noise.webm": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), Reason.UNREADABLE),
    "zipped.mp4": (lambda path: path.write_bytes(gzip.compress(write_video(path).read_bytes())), Reason.UNREADABLE),
    "no moov.mp4": (_cut(0.7), Reason.UNREADABLE),
    "no moov.mov": (_cut(0.7, "mov"), Reason.UNREADABLE),
    "head only.mkv": (_cut(0.01, "mkv"), Reason.UNREADABLE),
    "cut at 60 %.mp4": (_cut(0.6, movflags="faststart"), Reason.TRUNCATED),
    "cut at 99 %.mp4": (_cut(0.99, movflags="faststart"), Reason.TRUNCATED),
    "cut.mkv": (_cut(0.7, "mkv", 15.0), Reason.TRUNCATED),  # Matroska is read a cluster of 5 s at a time
    "cut.webm": (_cut(0.7, "webm", 15.0), Reason.TRUNCATED),
    "cut in the first cluster.mkv": (_cut(0.5, "mkv"), Reason.ZERO_FRAMES),
    "-cut.mov": (_cut(0.5, "mov", movflags="faststart"), Reason.TRUNCATED),
    "sound only.mp4": (write_audio_only, Reason.NO_VIDEO_STREAM),
    "sound.avi": (_wave, Reason.NO_VIDEO_STREAM),
    "subtitles.mkv": (_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n"), Reason.NO_VIDEO_STREAM),
    "no frames.avi": (_no_frames, Reason.ZERO_FRAMES),
    "unknown codec.mp4": (_patched(b"avc1", b"zzzz"), Reason.UNSUPPORTED_CODEC),
    "unknown codec.mkv": (_patched(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ", "mkv"), Reason.UNSUPPORTED_CODEC),
    "too wide.mov": (lambda path: write_stream(path, (16400, 2), 0.1, "png"), Reason.TOO_LARGE),
    "too high.mov": (lambda path: write_stream(path, (2, 16400), 0.1, "png"), Reason.TOO_LARGE),
    "all pictures lost.mp4": (_holed(0.0, 1.0), Reason.UNREADABLE),
    "a hole in the middle.mp4": (_holed(0.3, 0.7), Reason.UNREADABLE),
    "folder.mp4": (lambda path: path.mkdir(), Reason.STORAGE_PERMANENT),
    "link to nowhere.mp4": (lambda path: path.symlink_to("nowhere"), Reason.STORAGE_PERMANENT),
    "link to itself.mp4": (lambda path: path.symlink_to(path.name), Reason.STORAGE_PERMANENT),
    "pipe.mp4": (os.mkfifo, Reason.STORAGE_PERMANENT),
    "socket.mp4": (_socket, Reason.STORAGE_PERMANENT),
    "gone\nwith a newline.mp4": (lambda path: None, Reason.STORAGE_PERMANENT),
    f"{'name' * 70}.mp4": (lambda path: None, Reason.STORAGE_PERMANENT),
    "nul\0.mp4": (lambda path: None, Reason.STORAGE_PERMANENT),
    "hangs with the GIL.mp4": (write_stream, Reason.TIMEOUT),
    "eats memory.mp4": (write_stream, Reason.OUT_OF_MEMORY),
    "segfaults.mp4": (write_stream, Reason.CRASHED),
}
"""name → how to write it, and its reason."""
