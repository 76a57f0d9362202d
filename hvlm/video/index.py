"""What a video file holds, read from its packets without decoding them: frame times, seek points, upright size."""

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Discard

from hvlm.errors import Reason, VideoError

MAX_SIDE_PX = 16384
MAX_PIXELS = 64_000_000
# Containers that store no pts: FFmpeg makes them up, and after B-frames decoders return them in the wrong order.
FORMATS_WITHOUT_PTS = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo"})

_MATROSKA = "matroska,webm"
_EBML_HEAD, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# A stated duration may be rounded, or count a last frame of unknown length: only more than both of these is a loss.
_LOSS_FRACTION = 0.05
_LOSS_S = 1.0


@dataclass(frozen=True, slots=True)
class VideoStream:
    """Where the pictures are: a local file, a stream of it, and the clockwise degrees that make a frame upright."""

    path: str
    stream_index: int
    rotation: int


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The displayed frames of a video's best stream, in presentation order.

    Args:
        path: local file.
        stream_index: the stream FFmpeg calls best (default disposition, then stated bit rate, then the first).
        codec: name of the codec, e.g. "h264".
        width: pixels of the upright frame.
        height: pixels of the upright frame.
        rotation: clockwise degrees (0, 90, 180, 270) that make a stored frame upright.
        fps: frames / duration_s, the true average.
        duration_s: last pts + its duration - first pts.
        time_base: seconds per unit of pts.
        pts: int64 (N,), strictly increasing.
        keyframes: bool (N,), frames from which all that is displayed later can be decoded.
        counted: the pts a decoder returns cannot be trusted; its frames are counted from the start of the file.
    """

    path: str
    stream_index: int
    codec: str
    width: int
    height: int
    rotation: int
    fps: float
    duration_s: float
    time_base: Fraction
    pts: npt.NDArray[np.int64]
    keyframes: npt.NDArray[np.bool_]
    counted: bool

    @property
    def stream(self) -> VideoStream:
        """The stream that this is the index of."""
        return VideoStream(self.path, self.stream_index, self.rotation)

    @property
    def num_frames(self) -> int:
        """N, the number of displayed frames."""
        return len(self.pts)

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """float64 (N,), seconds since the first frame."""
        numerator, denominator = self.time_base.numerator, self.time_base.denominator
        return np.asarray((self.pts - self.pts[0]) * numerator / denominator, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the headers say, unproved. `num_frames` and `duration_s` are 0 where the container states none."""

    duration_s: float
    fps: float
    codec: str
    num_frames: int
    width: int
    height: int
    num_streams: int


@dataclass(frozen=True, slots=True)
class _Packets:
    """Packets in decode order; times in time base units, -1 duration where unknown."""

    pts: list[int | None]
    dts: list[int | None]
    duration: list[int]
    keyframe: list[bool]
    discard: list[bool]


@contextmanager
def open_video(path: str | Path) -> Iterator[Any]:
    """Open a container; FFmpeg's errors inside the block become `VideoError`.

    Raises:
        VideoError: storage_permanent (missing, no permission), unreadable (not a video), storage_transient (I/O error).
    """
    try:
        with av.open(str(path)) as container:
            yield container
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise VideoError(Reason.STORAGE_PERMANENT, f"{path}: {error}") from error
    except (av.error.InvalidDataError, av.error.EOFError, av.error.PatchWelcomeError) as error:
        raise VideoError(Reason.UNREADABLE, f"{path}: {error}") from error
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
            raise VideoError(Reason.OUT_OF_MEMORY, f"{path}: {error}") from error
        if isinstance(error, OSError) and not _can_be_read(path):
            raise VideoError(Reason.STORAGE_TRANSIENT, f"{path}: {error}", permanent=False) from error
        raise VideoError(Reason.UNREADABLE, f"{path}: {error}") from error


def _can_be_read(path: str | Path) -> bool:
    """Whether the storage gives the whole file: FFmpeg says "I/O error" of a Matroska file cut in its head too."""
    try:
        with open(path, "rb") as file:
            while file.read(8 * 2**20):
                pass
    except OSError:
        return False
    return True


def best_stream(container: Any, path: str | Path) -> Any:
    """The video stream that is decoded: the one FFmpeg calls best, checked.

    Raises:
        VideoError: no_video_stream, unsupported_codec, too_large.
    """
    stream = container.streams.best("video")
    if stream is None:
        found = ", ".join(s.type for s in container.streams) or "none"
        raise VideoError(Reason.NO_VIDEO_STREAM, f"{path}: no video stream; its streams are: {found}")
    if stream.codec_context is None:
        raise VideoError(Reason.UNSUPPORTED_CODEC, f"{path}: FFmpeg {av.ffmpeg_version_info} has no decoder for it")
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        limits = f"{MAX_SIDE_PX} pixels a side and {MAX_PIXELS} in all"
        raise VideoError(Reason.TOO_LARGE, f"{path}: frames of {width}x{height}; the limits are {limits}")
    return stream


def probe_video(path: str | Path) -> ProbeResult:
    """What the headers of a video say; reads no packet beyond what opening needs.

    Raises:
        VideoError: as `open_video` and `best_stream`.
    """
    with open_video(path) as container:
        stream = best_stream(container, path)
        duration = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        return ProbeResult(
            duration_s=duration,
            fps=float(stream.average_rate or 0),
            codec=stream.codec_context.codec.canonical_name,
            num_frames=stream.frames,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            num_streams=len(container.streams),
        )


def scan_video(path: str | Path, cut: bool = False) -> VideoIndex:
    """Read every packet of a video's best stream (not decoding it, but for one frame that tells the rotation).

    Args:
        path: local file.
        cut: the file ends early and that is no failure: the frames that are there are listed, but for the last few,
            between which others would have been shown.

    Raises:
        VideoError: as `open_video` and `best_stream`; truncated when the file ends before what its own index lists,
            before its stated size (AVI), or (MKV, WebM) clearly before its stated duration; zero_frames; unreadable
            when the first frame cannot be decoded.
    """
    with open_video(path) as container:
        stream = best_stream(container, path)
        if not cut:
            _check_complete(stream, path)
            if container.format.name == "avi":
                _check_riff(path)
        stream_index, rotation = stream.index, _read_rotation(container, stream, path)
    with open_video(path) as container:
        stream = container.streams[stream_index]
        packets = _read_packets(container, stream, cut)
        if cut:
            packets = _leave_out_gaps(packets)
        if not any(not discard for discard in packets.discard):
            raise VideoError(Reason.ZERO_FRAMES, f"{path}: stream {stream.index} holds no displayed frame")
        index = _build_index(path, container.format.name, stream, packets, rotation)
        stated_s = (container.duration or 0) / 1e6
    if not cut and container.format.name == _MATROSKA and not _has_whole_segment(path):
        _check_end(index, stated_s)
    return index


def _read_packets(container: Any, stream: Any, cut: bool) -> _Packets:
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    packets = _Packets([], [], [], [], [])
    for packet in container.demux(stream):
        if cut and packet.is_corrupt:
            break  # the last packet of a file that is cut may be there in part
        if packet.size:
            packets.pts.append(packet.pts)
            packets.dts.append(packet.dts)
            packets.duration.append(packet.duration or 0)
            packets.keyframe.append(packet.is_keyframe)
            packets.discard.append(packet.is_discard)
    return packets


def _leave_out_gaps(packets: _Packets) -> _Packets:
    """Mark the frames of a cut file as not shown that stand after one that is lost.

    The last packets may be of frames shown later than others that are lost. A lost packet comes after the last dts, and
    none is shown before its own.
    """
    last_dts = max((dts for dts in packets.dts if dts is not None), default=None)
    if last_dts is None:
        return packets
    late = [pts is not None and pts > last_dts for pts in packets.pts]
    return replace(packets, discard=[a or b for a, b in zip(packets.discard, late, strict=True)])


def _read_rotation(container: Any, stream: Any, path: str | Path) -> int:
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        return int(-frame.rotation) % 360 // 90 * 90
    raise VideoError(Reason.ZERO_FRAMES, f"{path}: stream {stream.index} decodes to no frame")


def _check_complete(stream: Any, path: str | Path) -> None:
    """MP4 and MOV list every sample with its place in the file: a download that stopped early shows there."""
    entries = stream.index_entries
    if len(entries) == 0:
        return
    size_bytes = Path(path).stat().st_size
    needed_bytes = max(entry.pos + entry.size for entry in entries)
    if needed_bytes > size_bytes:
        lost = sum(entry.pos + entry.size > size_bytes for entry in entries)
        raise VideoError(
            Reason.TRUNCATED,
            f"{path}: the file has {size_bytes} bytes, its index needs {needed_bytes}; "
            f"{lost} of {len(entries)} frames are missing",
        )


def _check_riff(path: str | Path) -> None:
    """An AVI states its size (in pieces of 1 GiB the first piece's); a recording that was never closed states 0."""
    with open(path, "rb") as file:
        head = file.read(8)
    stated_bytes, size_bytes = 8 + int.from_bytes(head[4:8], "little"), Path(path).stat().st_size
    if head[:4] == b"RIFF" and stated_bytes > size_bytes:
        message = f"{path}: the file has {size_bytes} bytes, it states {stated_bytes}"
        raise VideoError(Reason.TRUNCATED, message)


def _has_whole_segment(path: str | Path) -> bool:
    """MKV and WebM hold one segment that states its size; a live recording states none, then the answer is no."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:4] != _EBML_HEAD:
        return False
    size, at = _ebml_size(head, 4)
    segment_at = at + (size or 0)
    if size is None or head[segment_at : segment_at + 4] != _SEGMENT:
        return False
    size, at = _ebml_size(head, segment_at + 4)
    return size is not None and Path(path).stat().st_size >= at + size


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """The size stated at `at` (None: unknown) and where its content starts; the first byte's zeros count its bytes."""
    length = 9 - data[at].bit_length() if at < len(data) and data[at] else 0
    if not length or at + length > len(data):
        return None, at
    value = int.from_bytes(data[at : at + length], "big") - (1 << 7 * length)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def _check_end(index: VideoIndex, stated_s: float) -> None:
    """A file that was cut reads to its cut without an error. A video shorter than the sound beside it is whole."""
    loss_s = max(_LOSS_S, _LOSS_FRACTION * stated_s)
    end_s = float(index.pts[0] * index.time_base) + index.duration_s
    if stated_s - end_s <= loss_s:
        return
    with open_video(index.path) as container:
        ends = [float((p.pts + (p.duration or 0)) * p.time_base) for p in container.demux() if p.pts is not None]
    end_s = max([end_s, *ends])
    if stated_s - end_s > loss_s:
        message = f"{index.path}: the file states {stated_s:.2f} s, its last packet ends at {end_s:.2f} s"
        raise VideoError(Reason.TRUNCATED, message)


def _build_index(path: str | Path, format_name: str, stream: Any, packets: _Packets, rotation: int) -> VideoIndex:
    shown = np.flatnonzero(~np.array(packets.discard))
    counted = format_name in FORMATS_WITHOUT_PTS
    times = [packets.pts[i] for i in shown]
    if any(t is None for t in packets.pts) or len(set(times)) < len(times):
        counted, times = True, [packets.dts[i] for i in shown]
    if any(t is None for t in times) or len(set(times)) < len(times):
        step = max(1, round(1 / (float(stream.average_rate or stream.guessed_rate or 25) * stream.time_base)))
        times = [k * step for k in range(len(shown))]
    order = np.argsort(np.array(times, np.int64), kind="stable")
    pts = np.array(times, np.int64)[order]
    duration_s = _duration(pts, np.array(packets.duration)[shown][order], stream)
    width, height = stream.codec_context.width, stream.codec_context.height
    return VideoIndex(
        path=str(path),
        stream_index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        rotation=rotation,
        fps=len(pts) / duration_s,
        duration_s=duration_s,
        time_base=stream.time_base,
        pts=pts,
        keyframes=np.array(packets.keyframe)[shown][order],
        counted=counted,
    )


def _duration(pts: npt.NDArray[np.int64], durations: npt.NDArray[np.int64], stream: Any) -> float:
    """Seconds from the first pts to the end of the last frame; a last frame of unknown length lasts the median step."""
    last = int(durations[-1])
    if last <= 0 and len(pts) > 1:
        last = math.ceil(float(np.median(np.diff(pts))))
    if last <= 0:
        last = max(1, round(1 / (float(stream.average_rate or 25) * stream.time_base)))
    return float((int(pts[-1]) + last - int(pts[0])) * stream.time_base)
