"""Decode with decord: it gets the packets of each run as a small video in memory and decodes them from first to last.

decord is never asked to seek or to choose a stream (see `hvlm.video.packets` for what it does then), so it returns the
same frames as PyAV from every file.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import av
import decord
import numpy as np
import numpy.typing as npt

from hvlm.errors import Reason, VideoError
from hvlm.video.index import open_video
from hvlm.video.packets import FrameRequest, PacketReader, Run, plan_runs, truncated

# A run is handed over in pieces of about this size, cut at keyframes, so that memory does not grow with its length.
CHUNK_BYTES = 16_000_000
# Frames are taken from decord in batches of this size.
BATCH_BYTES = 8_000_000
# Matroska takes every codec, but decord cannot open one of a few frames ("broken metadata"); MP4 can be that short.
MP4_CODECS = frozenset({"h264", "hevc", "mpeg4", "av1", "vp9", "mpeg2video"})
CONTAINERS = {"vp8": "ivf"}


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int
    dts: int | None
    duration: int
    is_keyframe: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Packets that decode on their own; the frames with pts from `end_pts` on belong to the next chunk."""

    packets: list[_Packet]
    end_pts: int | None


class DecordBackend:
    """One decoding thread per decoder."""

    name = "decord"
    # PyAV makes the index and picks the packets, so it has a part in which frames come out.
    version = f"{version('decord2')}, PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info})"

    def __init__(self) -> None:
        # Its errors arrive as exceptions; printing them too would fill the logs of a job with one line per bad packet.
        decord.logging.set_level(decord.logging.QUIET)

    def decode(self, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
        """See `DecoderBackend.decode`."""
        done = 0
        try:
            with open_video(request.path) as container:
                decode_run = _decode_counted if request.counted else _decode_run
                stream = container.streams[request.stream_index]
                reader = PacketReader(container, stream, request.path)
                for run in plan_runs(request):
                    for frame in decode_run(reader, run, request):
                        yield frame
                        done += 1
        except decord.DECORDError as error:
            raise truncated(request, done, _reason(error)) from error
        if done < len(request.frame_index):
            raise truncated(request, done, "the video ended")


def _decode_run(reader: PacketReader, run: Run, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
    """The wanted frames of one run; stops early when a packet or a frame is missing."""
    wanted = run.frame_pts
    for chunk in _chunks(reader.read_run(run, counted=False), run.seek_pts):
        stored = np.sort(np.array([packet.pts for packet in chunk.packets], np.int64))
        end = len(wanted) if chunk.end_pts is None else int(np.searchsorted(wanted, chunk.end_pts))
        numbers = np.searchsorted(stored, wanted[:end])
        lost = np.flatnonzero(~np.isin(wanted[:end], stored))
        if len(numbers):
            video = _open_chunk(chunk.packets, reader.stream)
            yield from _read_frames(video, numbers[: lost[0]] if len(lost) else numbers)
        if len(lost):
            raise truncated(request, int(np.searchsorted(request.frame_pts, wanted[lost[0]])), "its packet is missing")
        wanted = wanted[end:]


def _decode_counted(reader: PacketReader, run: Run, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
    """Containers without pts (AVI): decord reads the file itself, every frame, because its skipping seeks."""
    streams = [stream.index for stream in reader.container.streams.video]
    if len(streams) > 1:
        message = f"{request.path}: decord cannot be told which of the video streams {streams} to take; use pyav"
        raise VideoError(Reason.UNSUPPORTED_CODEC, message)
    video, wanted = decord.VideoReader(request.path, num_threads=1), set(run.frame_index.tolist())
    for number in range(min(len(video), max(wanted) + 1)):
        frame = video.next()
        if number in wanted:
            yield frame.asnumpy()


def _read_frames(video: Any, numbers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames `numbers` counted from the start.

    `get_batch` converts only these to RGB, and where there is one keyframe it reads on. (`skip_frames` with `next`
    would need no batches, but loses count after the first `next`.)
    """
    first, frame_bytes = 0, BATCH_BYTES
    while first < len(numbers):
        size = max(1, BATCH_BYTES // frame_bytes)
        batch = video.get_batch(numbers[first : first + size]).asnumpy()
        frame_bytes = batch[0].nbytes
        yield from batch
        first += size


def _chunks(packets: Iterable[Any], seek_pts: int | None) -> Iterator[_Chunk]:
    """Cut the packets of a run at keyframes into pieces of CHUNK_BYTES.

    The keyframe of a cut stands in both pieces: frames shown before it but coded after it (open GOP) need it in the
    first. At the start of a piece such frames are left out; they cannot be decoded there, and whether decord counts
    them depends on the codec. All keyframes but the first are marked as ordinary frames, so that decord never seeks.
    """
    kept: list[_Packet] = []
    size_bytes, cut = 0, None
    for source in packets:
        packet = _Packet(source.pts, source.dts, source.duration or 0, source.is_keyframe, bytes(source))
        if seek_pts is not None and packet.pts < seek_pts:
            continue
        if cut is not None and packet.pts > cut.pts:
            yield _Chunk(kept, cut.pts)
            kept, size_bytes, seek_pts, cut = [cut], len(cut.data), cut.pts, None
        kept.append(packet)
        size_bytes += len(packet.data)
        if cut is None and packet.is_keyframe and len(kept) > 1 and size_bytes > CHUNK_BYTES:
            cut = packet
    if kept:
        yield _Chunk(kept, None)


def _open_chunk(packets: list[_Packet], template: Any) -> Any:
    """A decord reader over these packets, as a video of its own that starts at pts 0."""
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
    return decord.VideoReader(memory, num_threads=1)


def _reason(error: Exception) -> str:
    """The first line of decord's message, without its own stack trace."""
    return str(error).strip().splitlines()[0][:300]
