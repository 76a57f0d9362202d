"""Decode with decord: it gets the packets of each run as small videos in memory (`hvlm.video.chunks`)."""

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import av
import decord
import numpy as np
import numpy.typing as npt
from decord._ffi.base import DECORDLimitReachedError

from hvlm.video.chunks import read_batches, read_chunks
from hvlm.video.index import open_video
from hvlm.video.packets import FrameRequest, PacketReader, Run, plan_runs, truncated

# The share of frames that decord may replace by their neighbours; 0 and below mean any number.
NO_FAULT = 1e-9


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
                stream = container.streams[request.stream_index]
                reader = PacketReader(container, stream, request.path)
                for run in plan_runs(request):
                    for frame in _decode_run(reader, run, request):
                        yield frame
                        done += 1
        except (decord.DECORDError, DECORDLimitReachedError) as error:
            raise truncated(request, done, _reason(error)) from error
        if done < len(request.frame_index):
            raise truncated(request, done, "the video ended")


def _decode_run(reader: PacketReader, run: Run, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
    """The wanted frames of one run.

    `get_batch` converts only the frames it is asked for to RGB, and where there is one keyframe it reads on.
    (`skip_frames` with `next` would need no batches, but loses count after the first `next`.)

    decord counts the frames that come out. FFmpeg drops a damaged HEVC frame in silence, and then decord returns frame
    36 for frame 30. So the last frame of the chunk is read too: where one was dropped it cannot be, and `fault_tol`
    makes decord say so instead of returning another.
    """
    for chunk in read_chunks(reader, run, request):
        video: Any = decord.VideoReader(chunk.file, num_threads=1, fault_tol=NO_FAULT)
        yield from read_batches(chunk.numbers, partial(_get_batch, video))
        if chunk.numbers[-1] < len(chunk.times_s) - 1:
            _get_batch(video, np.array([len(chunk.times_s) - 1]))


def _get_batch(video: Any, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return video.get_batch(numbers).asnumpy()


def _reason(error: Exception) -> str:
    """The first line of decord's message, without its own stack trace."""
    return str(error).strip().splitlines()[0][:300]
