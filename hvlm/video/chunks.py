"""The packets of a run as small videos in memory, for decoders that read files: decord and torchcodec.

Such a decoder is never asked to seek or to choose a stream (see `hvlm.video.packets` for what it does then), so it
returns the same frames as PyAV from every file.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from hvlm.video.packets import FrameRequest, PacketReader, Run, truncated

# A run is handed over in pieces of about this size, cut at keyframes, so that memory does not grow with its length.
CHUNK_BYTES = 16_000_000
# Frames are taken from a decoder in batches of this size.
BATCH_BYTES = 8_000_000
# Matroska takes every codec, but decord cannot open one of a few frames ("broken metadata"); MP4 can be that short.
MP4_CODECS = frozenset({"h264", "hevc", "mpeg4", "av1", "vp9", "mpeg2video"})
CONTAINERS = {"vp8": "ivf"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A video in memory whose first frame is a keyframe and stands at time 0; decoders never seek in it.

    Args:
        file: the container, at its start.
        times_s: float64 (N,), when its frames are shown, in presentation order.
        numbers: int64 (F,), the wanted ones, counted from the first shown frame; at least one.
    """

    file: io.BytesIO
    times_s: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int
    dts: int | None
    duration: int
    is_keyframe: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class _Cut:
    """Packets that decode on their own; the frames with pts from `end_pts` on belong to the next cut."""

    packets: list[_Packet]
    end_pts: int | None


def read_chunks(reader: PacketReader, run: Run, request: FrameRequest) -> Iterator[Chunk]:
    """The chunks that hold the wanted frames of a run, in order.

    Raises:
        VideoError: truncated, after the frames before it, when the packet of a wanted frame is missing.
        ValueError: the frames have to be counted: see `backend_for`.
    """
    if request.counted:
        raise ValueError(f"{request.path} has no pts by which its packets could be told apart")
    wanted = run.frame_pts
    for cut in _cuts(reader.read_run(run, counted=False), run.seek_pts):
        stored = np.sort(np.array([packet.pts for packet in cut.packets], np.int64))
        end = len(wanted) if cut.end_pts is None else int(np.searchsorted(wanted, cut.end_pts))
        numbers = np.searchsorted(stored, wanted[:end])
        lost = np.flatnonzero(~np.isin(wanted[:end], stored))
        numbers = numbers[: lost[0]] if len(lost) else numbers
        if len(numbers):
            times_s = (stored - stored[0]) * float(reader.stream.time_base)
            yield Chunk(_write_video(cut.packets, reader.stream), times_s, numbers)
        if len(lost):
            raise truncated(request, int(np.searchsorted(request.frame_pts, wanted[lost[0]])), "its packet is missing")
        wanted = wanted[end:]


def read_batches(
    numbers: npt.NDArray[np.int64], read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames `numbers` in batches of about BATCH_BYTES; the first batch, one frame, tells their size."""
    first, frame_bytes = 0, BATCH_BYTES
    while first < len(numbers):
        size = max(1, BATCH_BYTES // frame_bytes)
        batch = read(numbers[first : first + size])
        frame_bytes = batch[0].nbytes
        yield from batch
        first += size


def _cuts(packets: Iterable[Any], seek_pts: int | None) -> Iterator[_Cut]:
    """Cut the packets of a run at keyframes into pieces of CHUNK_BYTES.

    The keyframe of a cut stands in both pieces: frames shown before it but coded after it (open GOP) need it in the
    first. At the start of a piece such frames are left out; they cannot be decoded there, and whether a decoder counts
    them depends on the codec.
    """
    kept: list[_Packet] = []
    size_bytes, cut = 0, None
    for source in packets:
        packet = _Packet(source.pts, source.dts, source.duration or 0, source.is_keyframe, bytes(source))
        if seek_pts is not None and packet.pts < seek_pts:
            continue
        if cut is not None and packet.pts > cut.pts:
            yield _Cut(kept, cut.pts)
            kept, size_bytes, seek_pts, cut = [cut], len(cut.data), cut.pts, None
        kept.append(packet)
        size_bytes += len(packet.data)
        if cut is None and packet.is_keyframe and len(kept) > 1 and size_bytes > CHUNK_BYTES:
            cut = packet
    if kept:
        yield _Cut(kept, None)


def _write_video(packets: list[_Packet], template: Any) -> io.BytesIO:
    """These packets as a video that starts at pts 0, all keyframes but the first marked as ordinary frames."""
    memory = io.BytesIO()
    first = min(packet.pts for packet in packets)
    codec = template.codec_context.codec.canonical_name
    container_format = "mp4" if codec in MP4_CODECS else CONTAINERS.get(codec, "matroska")
    with av.open(memory, "w", format=container_format) as output:
        stream = output.add_stream_from_template(template, opaque=True)
        for packet in packets:
            copy: Any = av.Packet(packet.data)
            copy.stream, copy.time_base = stream, Fraction(template.time_base)
            copy.pts, copy.dts = packet.pts - first, None if packet.dts is None else packet.dts - first
            copy.duration, copy.is_keyframe = packet.duration, packet is packets[0]
            output.mux(copy)
    memory.seek(0)
    return memory
