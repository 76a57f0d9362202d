from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import chunks
from hvlm.video.decord_backend import DecordBackend
from hvlm.video.index import scan_video
from hvlm.video.pyav_backend import PyAVBackend
from tests.hvlm.video.backends import WITH_PTS
from tests.hvlm.video.numbered import read_number, request_frames


def test_name_and_version_go_into_fingerprints():
    assert DecordBackend.name == "decord"
    assert DecordBackend.version == f"{version('decord2')}, PyAV {PyAVBackend.version}"  # PyAV picks its packets


@pytest.mark.parametrize("name", WITH_PTS)
def test_long_runs_are_cut_at_keyframes(
    numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    monkeypatch.setattr(chunks, "BATCH_BYTES", 1)
    request = request_frames(scan_video(numbered_video(name)), list(range(60)))
    assert [read_number(frame) for frame in DecordBackend().decode(request)] == list(range(60))


def test_a_frame_whose_packet_is_missing_is_a_failure(numbered_video: Callable[[str], Path]):
    request = request_frames(scan_video(numbered_video("cfr")), [3, 20])
    request.frame_pts[1] += 1
    frames = DecordBackend().decode(request)
    assert read_number(next(frames)) == 3
    with pytest.raises(VideoError, match="1 of 2 wanted frames") as failure:
        next(frames)
    assert failure.value.reason == Reason.TRUNCATED
