from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import pyav_backend
from hvlm.video.index import scan_video
from hvlm.video.pyav_backend import PyAVBackend
from tests.hvlm.video.numbered import request_frames


def test_version_names_ffmpeg_too():
    assert PyAVBackend.name == "pyav"
    assert "FFmpeg" in PyAVBackend.version


@pytest.mark.parametrize("name", ["bframes", "bpyramid", "opengop", "hevc"])
def test_leaving_frames_out_does_not_change_the_others(
    numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
):
    request = request_frames(scan_video(numbered_video(name)), list(range(0, 60, 7)))
    quick = [frame.copy() for frame in PyAVBackend().decode(request)]
    monkeypatch.setattr(pyav_backend, "CODECS_THAT_SKIP", frozenset())
    thorough = [frame.copy() for frame in PyAVBackend().decode(request)]
    assert all(np.array_equal(a, b) for a, b in zip(quick, thorough, strict=True))


def test_unwanted_frames_are_left_out(numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    """Of the 60 frames of a B-frame video half lean on others only: far fewer than the first 41 are decoded."""
    request = request_frames(scan_video(numbered_video("bframes")), [0, 20, 40])
    decoded = []
    decode_packets = pyav_backend._decode_packets

    def counting(*args):
        for frame in decode_packets(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav_backend, "_decode_packets", counting)
    assert len(list(PyAVBackend().decode(request))) == 3
    assert len(decoded) < 30


def test_only_keyframes_are_decoded_where_only_they_are_wanted(
    numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    index = scan_video(numbered_video("bframes"))
    keyframes = np.flatnonzero(index.keyframes).tolist()
    fed = []
    read_run = pyav_backend.PacketReader.read_run

    def counting(self, run, counted):
        for packet in read_run(self, run, counted):
            fed.append(packet.pts)
            yield packet

    monkeypatch.setattr(pyav_backend.PacketReader, "read_run", counting)
    assert len(list(PyAVBackend().decode(request_frames(index, keyframes)))) == len(keyframes)
    assert fed == index.pts[keyframes].tolist()


def test_a_frame_that_never_comes_is_a_failure(numbered_video: Callable[[str], Path]):
    request = request_frames(scan_video(numbered_video("cfr")), [3, 20])
    request.frame_pts[1] += 1
    with pytest.raises(VideoError, match="1 of 2 wanted frames") as failure:
        list(PyAVBackend().decode(request))
    assert failure.value.reason == Reason.TRUNCATED


def test_frames_beyond_the_end_of_an_avi_are_a_failure(numbered_video: Callable[[str], Path]):
    index = scan_video(numbered_video("mpeg4_avi"))
    request = request_frames(index, [3, 59])
    request.frame_index[1] = 100
    with pytest.raises(VideoError, match="1 of 2 wanted frames"):
        list(PyAVBackend().decode(request))
