import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hvlm.errors import Reason, UserError, VideoError
from hvlm.video import chunks
from hvlm.video.index import scan_video
from hvlm.video.torchcodec_backend import TorchCodecBackend
from tests.hvlm.video.backends import WITH_PTS, needs_torchcodec
from tests.hvlm.video.numbered import read_number, request_frames


@needs_torchcodec
def test_version_names_every_library():
    version = TorchCodecBackend().version
    assert TorchCodecBackend.name == "torchcodec"
    assert "(FFmpeg " in version and "PyAV" in version


def test_where_it_is_not_installed_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UserError, match=r"backend=torchcodec.*pip install torchcodec.*ffmpeg.*backend=pyav"):
        TorchCodecBackend()


@needs_torchcodec
@pytest.mark.parametrize("name", WITH_PTS)
def test_long_runs_are_cut_at_keyframes(
    numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    monkeypatch.setattr(chunks, "BATCH_BYTES", 1)
    request = request_frames(scan_video(numbered_video(name)), list(range(60)))
    assert [read_number(frame) for frame in TorchCodecBackend().decode(request)] == list(range(60))


@needs_torchcodec
def test_a_frame_whose_packet_is_missing_is_a_failure(numbered_video: Callable[[str], Path]):
    request = request_frames(scan_video(numbered_video("cfr")), [3, 20])
    request.frame_pts[1] += 1
    with pytest.raises(VideoError, match="1 of 2 wanted frames") as failure:
        list(TorchCodecBackend().decode(request))
    assert failure.value.reason == Reason.TRUNCATED
