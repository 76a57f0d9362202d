"""Decode with torchcodec, which is optional: it gets the packets of each run as small videos in memory.

It reads FFmpeg's shared libraries (major versions 4 to 9) from where the system finds libraries; it brings none.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from hvlm.errors import UserError
from hvlm.video.chunks import Chunk, read_batches, read_chunks
from hvlm.video.index import open_video
from hvlm.video.packets import FrameRequest, PacketReader, plan_runs, truncated

# Matroska rounds times to 1 ms, on both ends of a difference; frames of 240 fps are 4 ms apart.
SAME_TIME_S = 0.002


class TorchCodecBackend:
    """One decoding thread per decoder."""

    name = "torchcodec"

    def __init__(self) -> None:
        """Load the library.

        Raises:
            UserError: it is not installed, or its FFmpeg is not found.
        """
        try:
            from torchcodec import ffmpeg_major_version
            from torchcodec.decoders import VideoDecoder

            if ffmpeg_major_version is None:
                raise ImportError("torchcodec is installed, but it finds no FFmpeg libraries")
        except (ImportError, RuntimeError, OSError) as error:
            raise UserError(
                what="decode.backend=torchcodec",
                got=str(error).strip().splitlines()[0][:200],
                expected="torchcodec and the FFmpeg libraries that it loads",
                do="pip install torchcodec and apt-get install ffmpeg (versions 4 to 9), or set decode.backend=pyav",
            ) from error
        self._open = VideoDecoder
        # PyAV makes the index and picks the packets, so it has a part in which frames come out.
        self.version = (
            f"{version('torchcodec')} (FFmpeg {ffmpeg_major_version}), "
            f"PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info})"
        )

    def decode(self, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
        """See `DecoderBackend.decode`."""
        done = 0
        try:
            with open_video(request.path) as container:
                reader = PacketReader(container, container.streams[request.stream_index], request.path)
                for run in plan_runs(request):
                    for chunk in read_chunks(reader, run, request):
                        for frame in self._read_frames(chunk):
                            yield frame
                            done += 1
        except (RuntimeError, IndexError) as error:
            raise truncated(request, done, str(error).strip().splitlines()[0][:300]) from error
        if done < len(request.frame_index):
            raise truncated(request, done, "the video ended")

    def _read_frames(self, chunk: Chunk) -> Iterator[npt.NDArray[np.uint8]]:
        decoder = self._open(chunk.file.getvalue(), dimension_order="NHWC", num_ffmpeg_threads=1)
        start_s = decoder.metadata.begin_stream_seconds

        def read(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
            batch: Any = decoder.get_frames_at(numbers.tolist())
            # Where a frame cannot be decoded torchcodec returns the one after it, and says so by its time alone.
            late = np.abs(batch.pts_seconds.numpy() - start_s - chunk.times_s[numbers]) > SAME_TIME_S
            if late.any():
                raise RuntimeError(f"no frame at {chunk.times_s[numbers][late][0]:.3f} s of its run")
            return batch.data.numpy()

        yield from read_batches(chunk.numbers, read)
