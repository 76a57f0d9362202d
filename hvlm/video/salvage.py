"""The part of a damaged or cut video that can be decoded: from its start to the first frame that cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt

from hvlm.errors import Reason, VideoError
from hvlm.video.index import VideoIndex, open_video, scan_video
from hvlm.video.packets import PacketReader, Run


def salvage_video(path: str | Path) -> VideoIndex:
    """The index of the frames before the first that cannot be decoded; all of them are decoded once to find it.

    What is kept depends on the file (and FFmpeg) alone, not on which frames are wanted or who asks.

    Raises:
        VideoError: as `scan_video`, but truncated only where not even the first frame can be decoded.
    """
    cut = False
    try:
        index = scan_video(path)
    except VideoError as error:
        if error.reason is not Reason.TRUNCATED:
            raise
        cut = True
        index = scan_video(path, cut=True)
    kept = _num_decodable(index, cut)
    if kept == 0:
        raise VideoError(Reason.TRUNCATED, f"{path}: its first frame cannot be decoded")
    if kept == index.num_frames:
        return index
    duration_s = float((index.pts[kept] - index.pts[0]) * index.time_base)
    return replace(
        index, pts=index.pts[:kept], keyframes=index.keyframes[:kept], duration_s=duration_s, fps=kept / duration_s
    )


def _num_decodable(index: VideoIndex, cut: bool) -> int:
    """How many frames, in the order they are shown, can be decoded before the first that cannot.

    Where frames are counted the decoder's last ones are not taken of a cut file: before them others may be missing.
    """
    shown: list[int | None] = []
    with open_video(index.path) as container:
        stream = container.streams[index.stream_index]
        stream.codec_context.thread_count = 1
        try:
            whole = _decode_until_damage(PacketReader(container, stream, index.path), index, shown)
            if whole and not (cut and index.counted):
                shown.extend(frame.pts for frame in stream.codec_context.decode(None) if not frame.is_corrupt)
        except (av.error.InvalidDataError, av.error.EOFError):
            pass  # the first damage: what was shown before it counts
        except VideoError as error:
            if error.reason is not Reason.TRUNCATED:
                raise
    if index.counted:
        return min(len(shown), index.num_frames)
    missing = np.flatnonzero(~np.isin(index.pts, np.array([pts for pts in shown if pts is not None], np.int64)))
    return int(missing[0]) if len(missing) else index.num_frames


def _decode_until_damage(reader: PacketReader, index: VideoIndex, shown: list[int | None]) -> bool:
    """Add the pts of the frames that come out; return whether none was damaged."""
    context: Any = reader.stream.codec_context
    everything: npt.NDArray[np.int64] = np.arange(index.num_frames)
    run = Run(None, everything, index.pts)
    for packet in reader.read_run(run, index.counted):
        for frame in context.decode(packet):
            if frame.is_corrupt:
                return False
            shown.append(frame.pts)
    return True
