"""Decode a segment once for all encoders, through one of three interchangeable backends."""

from collections.abc import Iterator, Mapping
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt

from hvlm.errors import Reason, UserError, VideoError
from hvlm.video.index import VideoStream
from hvlm.video.packets import BackendName, FrameRequest, backend_for
from hvlm.video.resizing import resize_and_crop
from hvlm.video.segments import SegmentPlan
from hvlm.video.views import FrameView


class DecoderBackend(Protocol):
    """A decoder. `name` and `version` go into the fingerprint of what is extracted with it."""

    name: str
    version: str

    def decode(self, request: FrameRequest) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield each wanted frame once, in order: upright RGB uint8 (H, W, 3), valid until the next is asked for.

        Requests whose frames are counted go to PyAV alone (`backend_for`).

        Raises:
            VideoError: truncated when a wanted frame cannot be decoded; unreadable, storage_* as `open_video`.
        """
        ...


def get_backend(name: BackendName) -> DecoderBackend:
    """The backend called `name`.

    Raises:
        UserError: there is none of this name, or what it needs is not installed.
    """
    if name == "pyav":
        from hvlm.video.pyav_backend import PyAVBackend

        return PyAVBackend()
    if name == "decord":
        from hvlm.video.decord_backend import DecordBackend

        return DecordBackend()
    if name == "torchcodec":
        from hvlm.video.torchcodec_backend import TorchCodecBackend

        return TorchCodecBackend()
    raise UserError(
        what="decode.backend", got=repr(name), expected=f"one of {', '.join(get_args(BackendName))}", do="choose one"
    )


def decode_views(
    stream: VideoStream,
    backend_name: BackendName,
    segment: SegmentPlan,
    views: Mapping[str, FrameView],
    out: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> dict[str, npt.NDArray[np.uint8]]:
    """All frames of a segment, decoded once: each is resized and cropped per view as it comes, then dropped.

    Args:
        stream: from the video's index.
        segment: from `plan_segments`.
        views: the views that the segment was planned for.
        out: where to put the frames, per view as returned; None: into new memory.

    Returns:
        Per view uint8 (F, crop, crop, 3), F as `ViewPlan.frame_index`; `cut_clips` makes clips of it.

    Raises:
        VideoError: as `DecoderBackend.decode`.
    """
    request = _request(stream, segment)
    frames = (
        dict(out)
        if out is not None
        else {
            name: np.empty((len(plan.frame_index), views[name].crop, views[name].crop, 3), np.uint8)
            for name, plan in segment.views.items()
        }
    )
    if len(request.frame_index) == 0:
        return frames
    done, backend = 0, get_backend(backend_for(backend_name, segment.counted))
    for number, frame in zip(request.frame_index.tolist(), backend.decode(request), strict=False):
        for name, plan in segment.views.items():
            first, end = np.searchsorted(plan.frame_index, (number, number + 1))
            if end > first:
                frames[name][first:end] = resize_and_crop(frame, views[name])
        done += 1
    if done < len(request.frame_index):
        wanted = len(request.frame_index)
        raise VideoError(
            Reason.TRUNCATED, f"{stream.path}: {done} of {wanted} wanted frames were decoded, then the video ended"
        )
    return frames


def _request(stream: VideoStream, segment: SegmentPlan) -> FrameRequest:
    """The union of the frames that the views want."""
    plans = segment.views.values()
    frame_index, first = np.unique(np.concatenate([plan.frame_index for plan in plans]), return_index=True)
    return FrameRequest(
        path=stream.path,
        stream_index=stream.stream_index,
        rotation=stream.rotation,
        frame_index=frame_index,
        frame_pts=np.concatenate([plan.frame_pts for plan in plans])[first],
        seek_index=segment.seek_index,
        seek_pts=segment.seek_pts,
        counted=segment.counted,
    )
