"""A small upright copy of a video: every frame at its time, cheap to decode again and again."""

from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from hvlm.errors import Reason, VideoError
from hvlm.video.index import VideoIndex, scan_video
from hvlm.video.packets import FrameRequest
from hvlm.video.pyav_backend import PyAVBackend
from hvlm.video.sampling import SAME_INSTANT_S

MIN_SIDE_PX = 16  # libx264 takes no less

_CODEC = "libx264"
# One keyframe in 12 frames: a frame taken alone costs at most 12 small ones. No B-frames: frames are stored in the
# order in which they are shown, so the times of the file are those of the frames.
_OPTIONS = {"preset": "veryfast", "crf": "18", "g": "12", "bf": "0"}
_NOMINAL_FPS = 25  # times decide; libx264 wants some rate in the header
# Over nine real videos these keep the mean colours of a 224² view within 0.5 levels, of two hard ones (10 bit, 128x128)
# within 1.6; with swscale's quick ways every copy is 1 to 3 levels darker.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_TO_SMALL_RGB = Interpolation.BICUBIC | _EXACT
_TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND


def copy_identity(short_side: int) -> dict[str, Any]:
    """What shapes the pixels of a copy, as plain JSON values; equal ones give equal bytes."""
    return {"short_side": short_side, "codec": _CODEC, "options": _OPTIONS, "version": PyAVBackend.version}


def copy_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) in pixels of the copy of an upright frame: even, never enlarged but to `MIN_SIDE_PX`."""
    scale = min(1.0, short_side / min(width, height))
    return max(MIN_SIDE_PX, round(width * scale / 2) * 2), max(MIN_SIDE_PX, round(height * scale / 2) * 2)


def shrink_video(index: VideoIndex, out_path: str, short_side: int) -> None:
    """Write an MP4 of all frames of `index`, upright, in at most this size; sampling it gives the same frames.

    PyAV decodes, whatever backend is asked for later: it reads every container and sees frames that FFmpeg made up. A
    small frame is RGB first, so that a copy has the colours that the original gives, whatever colour space it states.

    Args:
        index: of the original, or of the part of it that can be decoded.
        out_path: local; what stands there is overwritten.
        short_side: pixels.

    Raises:
        VideoError: truncated when a frame cannot be decoded; as `open_video`. OSError: the copy cannot be written.
    """
    width, height = copy_size(index.width, index.height, short_side)
    pts = index.pts - index.pts[0]
    last_duration = max(1, round(index.duration_s / index.time_base) - int(pts[-1]))
    stored_size = (height, width) if index.rotation % 180 else (width, height)
    scaler = VideoReformatter()
    with av.open(out_path, "w", format="mp4", options={"fflags": "+bitexact"}) as container:  # no dates, no random ids
        stream: Any = container.add_stream(_CODEC, rate=_NOMINAL_FPS, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = index.time_base
        stream.codec_context.thread_count = 1  # equal bytes everywhere

        def write(frame: Any) -> None:
            for packet in stream.encode(frame):
                if packet.pts == pts[-1]:  # of the others the next frame is the end
                    packet.duration = last_duration
                container.mux(packet)

        for number, frame in enumerate(PyAVBackend().frames(_every_frame(index))):
            rgb: Any = scaler.reformat(frame, *stored_size, format="rgb24", interpolation=_TO_SMALL_RGB).to_ndarray()
            upright: Any = np.ascontiguousarray(np.rot90(rgb, -index.rotation // 90))
            small = av.VideoFrame.from_ndarray(upright, format="rgb24").reformat(
                format="yuv420p", interpolation=_TO_YUV
            )
            small.pts, small.time_base = int(pts[number]), index.time_base
            write(small)
        write(None)
    _check(index, scan_video(out_path))


def _every_frame(index: VideoIndex) -> FrameRequest:
    nowhere = np.zeros(0, np.int64)
    return FrameRequest(
        path=index.path,
        stream_index=index.stream_index,
        rotation=index.rotation,
        frame_index=np.arange(index.num_frames, dtype=np.int64),
        frame_pts=index.pts,
        seek_index=nowhere,
        seek_pts=nowhere,
        counted=index.counted,
    )


def _check(index: VideoIndex, copy: VideoIndex) -> None:
    """A copy that is not the original's in number and times would put features at wrong places."""
    if copy.num_frames == index.num_frames:
        off_s = max(float(np.abs(copy.times_s - index.times_s).max()), abs(copy.duration_s - index.duration_s))
        if off_s < SAME_INSTANT_S:
            return
    raise VideoError(
        Reason.UNREADABLE,
        f"{index.path}: its copy has {copy.num_frames} frames in {copy.duration_s:.6f} s, "
        f"the file {index.num_frames} in {index.duration_s:.6f} s",
    )
