"""A copy is its video in small: frame k is picture k at the same time, upright."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import shrink
from hvlm.video.decoding import decode_views, get_backend
from hvlm.video.index import VideoIndex, scan_video
from hvlm.video.packets import FrameRequest
from hvlm.video.pyav_backend import PyAVBackend
from hvlm.video.salvage import salvage_video
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from hvlm.video.shrink import copy_identity, copy_size, shrink_video
from hvlm.video.views import FrameView
from tests.hvlm.video.numbered import (
    RECIPES,
    cut_with_edit_list,
    damage_frame,
    read_number,
    request_frames,
    write_video,
)

VIEWS = {
    "clip": FrameView(sampling=SamplingConfig(fps=3.0), resize=64, crop=64),
    "c3d": FrameView(sampling=SamplingConfig(fps=12.5), clip_frames=16, clip_stride=8, resize=64, crop=64),
    "few": FrameView(sampling=SamplingConfig(kind="uniform_n", n=5), resize=64, crop=64),
}


def shrunk(index: VideoIndex, folder: Path, short_side: int = 64) -> VideoIndex:
    shrink_video(index, str(folder / "copy"), short_side)
    return scan_video(folder / "copy")


def numbers(index: VideoIndex, backend: str = "pyav") -> list[int]:
    request = request_frames(index, list(range(index.num_frames)))
    return [read_number(frame) for frame in get_backend(backend).decode(request)]


@pytest.mark.parametrize("name", RECIPES)
def test_frames_times_and_segments_are_those_of_the_video(
    numbered_video: Callable[[str], Path], tmp_path: Path, name: str
):
    original = scan_video(numbered_video(name))
    copy = shrunk(original, tmp_path)
    assert numbers(copy) == list(range(60))
    assert copy.times_s == pytest.approx(original.times_s, abs=1e-9) and copy.rotation == 0 and not copy.counted
    assert copy.duration_s == pytest.approx(original.duration_s, abs=1e-9)
    assert (copy.width, copy.height) == copy_size(original.width, original.height, 64)
    assert np.flatnonzero(copy.keyframes)[0] == 0 and np.diff(np.flatnonzero(copy.keyframes)).max() <= 12
    pairs = zip(plan_segments(original, VIEWS, 1.0), plan_segments(copy, VIEWS, 1.0), strict=True)
    for one, other in pairs:
        assert one.span_s == pytest.approx(other.span_s)
        for view in VIEWS:
            assert np.array_equal(one.views[view].frame_index, other.views[view].frame_index)
            assert other.views[view].row_time_s == pytest.approx(one.views[view].row_time_s, abs=1e-9)


def test_other_backends_see_the_same_copy(numbered_video: Callable[[str], Path], tmp_path: Path):
    assert numbers(shrunk(scan_video(numbered_video("vfr")), tmp_path), "decord") == list(range(60))


def test_frames_hidden_by_an_edit_list_are_not_copied(tmp_path: Path):
    path = cut_with_edit_list(write_video(tmp_path / "edited.mp4", RECIPES["bframes"][1]), 5)
    assert numbers(shrunk(scan_video(path), tmp_path)) == list(range(5, 60))


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 256, (256, 456)),
        ((161, 127), 256, (160, 128)),  # only made even
        ((320, 240), 256, (320, 240)),
        ((2000, 20), 16, (1600, 16)),
        ((12, 9), 256, (16, 16)),  # less is refused by the codec
    ],
)
def test_the_shorter_side_is_shrunk_and_sides_are_even(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
):
    assert copy_size(*size, short_side) == expected


def test_equal_videos_and_settings_give_equal_bytes(numbered_video: Callable[[str], Path], tmp_path: Path):
    index = scan_video(numbered_video("bframes"))
    for name in ("a", "b"):
        shrink_video(index, str(tmp_path / name), 64)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert copy_identity(64) == copy_identity(64) != copy_identity(66)


@pytest.mark.parametrize("name", ["kinetics_test.mp4", "h264_10bits.mp4", "video_90.mov", "ucf_test.avi"])
def test_pixels_are_nearly_those_of_the_original(shared_video: Callable[[str], Path], tmp_path: Path, name: str):
    view = {"v": FrameView(sampling=SamplingConfig(kind="uniform_n", n=4), resize=224, crop=224)}
    original = scan_video(shared_video(name))
    frames = [
        decode_views(index.stream, "pyav", plan_segments(index, view, 3600.0)[0], view)["v"].astype(int)
        for index in (original, shrunk(original, tmp_path, 256))
    ]
    assert np.abs(frames[0] - frames[1]).mean() < 5.0
    assert np.abs((frames[0] - frames[1]).mean(axis=(0, 1, 2))).max() < 1.5  # no cast of any colour


def test_no_copy_is_made_of_a_damaged_video_but_of_its_good_part(tmp_path: Path):
    path = damage_frame(write_video(tmp_path / "v.mp4", RECIPES["cfr"][1]), 30)
    with pytest.raises(VideoError) as caught:
        shrunk(scan_video(path), tmp_path)
    assert caught.value.reason is Reason.TRUNCATED
    part = salvage_video(path)
    copy = shrunk(part, tmp_path)
    assert numbers(copy) == list(range(30)) and copy.duration_s == pytest.approx(part.duration_s)


def test_a_copy_with_other_frames_is_refused(
    numbered_video: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Lossy(PyAVBackend):
        def frames(self, request: FrameRequest) -> Iterator[Any]:
            yield from list(super().frames(request))[1:]

    index = scan_video(numbered_video("cfr"))
    with monkeypatch.context() as patched:
        patched.setattr(shrink, "PyAVBackend", Lossy)
        with pytest.raises(VideoError, match="its copy has 59 frames"):
            shrunk(index, tmp_path)
    late = replace(index, pts=index.pts * 2)  # the times that it says and those that are written
    with pytest.raises(VideoError, match="its copy has 60 frames in"):
        shrink._check(late, shrunk(index, tmp_path))


def test_a_full_disk_is_no_fault_of_the_video(numbered_video: Callable[[str], Path]):
    with pytest.raises(OSError) as caught:
        shrink_video(scan_video(numbered_video("cfr")), "/dev/full", 64)
    assert caught.value.errno == errno.ENOSPC
