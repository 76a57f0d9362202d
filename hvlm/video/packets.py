"""The packets that wanted frames need, and no others: all decoder backends are fed from here.

One reader for all is what makes them agree. Left to itself decord seeks and then counts frames from
where it believes it landed: measured on numbered frames it returns wrong ones in MPEG-TS, AVI and every open-GOP file
(the x265 default), and it reads the whole file at each open.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from av.stream import Discard

from hvlm.errors import Reason, VideoError

BackendName = Literal["decord", "pyav", "torchcodec"]

# Starting a new run drains the decoder (decord and torchcodec: a new one, 2 ms); decoding 16 small frames costs more.
MIN_SKIPPED_FRAMES = 16
# Reading past packets costs about 12 us each; below this distance that is cheaper than a seek.
MIN_SEEK_S = 4.0
# No packet of these codecs begins with zeros: such a one lies in a hole of the file (a download that left out a part).
# A decoder may pass over it in silence and show the next frame as if nothing were missing.
CODECS_WITHOUT_ZEROS = frozenset({"h264", "hevc", "mpeg4", "av1", "vp8", "vp9", "mpeg2video"})
HOLE_BYTES = 64
# Where a seek lands behind its target (by dts, not pts), it is tried again from here before it, then from the start.
SEEK_BACK_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRequest:
    """Which frames of which file a backend decodes.

    Args:
        path: local file.
        stream_index: the stream to decode.
        rotation: clockwise degrees that make a stored frame upright.
        frame_index: int64 (F,), strictly increasing.
        frame_pts: int64 (F,), their pts.
        seek_index: int64 (K,), keyframes, increasing; may be empty.
        seek_pts: int64 (K,), their pts.
        counted: see `VideoIndex`.
    """

    path: str
    stream_index: int
    rotation: int
    frame_index: npt.NDArray[np.int64]
    frame_pts: npt.NDArray[np.int64]
    seek_index: npt.NDArray[np.int64]
    seek_pts: npt.NDArray[np.int64]
    counted: bool


def backend_for(name: BackendName, counted: bool) -> BackendName:
    """Which backend decodes a file where `name` is configured: PyAV where frames have to be counted.

    torchcodec finds frames by pts, and decord cannot be told which of several streams to count. PyAV returns the frames
    they would, and its version is in their fingerprints too.
    """
    return "pyav" if counted else name


@dataclass(frozen=True, slots=True)
class Run:
    """Wanted frames that are decoded in one go from one keyframe (`seek_pts` None: from the start of the file)."""

    seek_pts: int | None
    frame_index: npt.NDArray[np.int64]
    frame_pts: npt.NDArray[np.int64]


def plan_runs(request: FrameRequest) -> list[Run]:
    """Cut the wanted frames where starting again at a keyframe saves decoding."""
    frames, seeks = request.frame_index, request.seek_index
    if request.counted or len(frames) == 0:
        return [Run(None, frames, request.frame_pts)] if len(frames) else []
    nearest = np.searchsorted(seeks, frames, side="right") - 1
    # Where only keyframes are wanted, nothing between two of them has to be decoded.
    skipped = 1 if np.isin(frames, seeks).all() else MIN_SKIPPED_FRAMES
    starts = [0]
    for k in range(1, len(frames)):
        if nearest[k] >= 0 and seeks[nearest[k]] - frames[k - 1] > skipped:
            starts.append(k)
    runs = []
    for first, end in zip(starts, [*starts[1:], len(frames)], strict=True):
        at = int(nearest[first])
        # Before the first displayed keyframe, and for the first frames of the file, the start is the start of the file.
        seek_pts = None if at < 0 or seeks[at] == 0 else int(request.seek_pts[at])
        runs.append(Run(seek_pts, frames[first:end], request.frame_pts[first:end]))
    return runs


class PacketReader:
    """Reads a stream's packets, jumping over what no run needs. Runs are read in order."""

    def __init__(self, container: Any, stream: Any, path: str) -> None:
        self.container, self.stream, self._path = container, stream, path
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        self._packets: Iterator[Any] = container.demux(stream)
        self._has_no_zeros = stream.codec_context.codec.canonical_name in CODECS_WITHOUT_ZEROS
        self._last_pts: int | None = None

    def read_run(self, run: Run, counted: bool) -> Iterator[Any]:
        """Packets of `run` in decode order, from its keyframe to the last wanted frame (to the end when counted)."""
        missing = set(run.frame_pts.tolist())
        if run.seek_pts is not None:
            keyframe = self._find(run.seek_pts)
            missing.discard(keyframe.pts)
            yield keyframe
        while missing or counted:
            packet = self._next()
            if packet is None:
                return
            if self._has_no_zeros and not any(memoryview(packet)[:HOLE_BYTES]):
                at_s = float((packet.pts or 0) * self.stream.time_base)
                raise VideoError(Reason.TRUNCATED, f"{self._path}: the packet at {at_s:.3f} s lies in a hole of zeros")
            missing.discard(packet.pts)
            yield packet

    def _next(self) -> Any:
        for packet in self._packets:
            if packet.size:
                self._last_pts = packet.pts if packet.pts is not None else self._last_pts
                return packet
        return None

    def _find(self, seek_pts: int) -> Any:
        """The keyframe packet with this pts; reads on when it is near, seeks when it is far."""
        time_base = self.stream.time_base
        last = self._last_pts if self._last_pts is not None else (self.stream.start_time or 0)
        if 0 <= (seek_pts - last) * time_base < MIN_SEEK_S:
            found = self._read_to(seek_pts)
            if found is not None:
                return found
        for target in (seek_pts, seek_pts - round(SEEK_BACK_S / time_base), self.stream.start_time or 0):
            self.container.seek(max(target, self.stream.start_time or 0), stream=self.stream, backward=True)
            self._packets = self.container.demux(self.stream)
            found = self._read_to(seek_pts)
            if found is not None:
                return found
        message = f"{self._path}: the keyframe at {float(seek_pts * time_base):.3f} s cannot be read again"
        raise VideoError(Reason.TRUNCATED, message)

    def _read_to(self, seek_pts: int) -> Any:
        while (packet := self._next()) is not None:
            if packet.pts == seek_pts and packet.is_keyframe:
                return packet
            if packet.dts is not None and packet.dts > seek_pts:
                return None
        return None


def truncated(request: FrameRequest, done: int, why: str) -> VideoError:
    """The failure of a video of which only the first `done` wanted frames could be decoded."""
    wanted = len(request.frame_index)
    number = int(request.frame_index[min(done, wanted - 1)])
    message = f"{request.path}: {done} of {wanted} wanted frames were decoded, then frame {number} failed: {why}"
    return VideoError(Reason.TRUNCATED, message)
