"""What is salvaged are the first frames of the video, each the right one, on every backend."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video.decoding import get_backend
from hvlm.video.index import scan_video
from hvlm.video.salvage import salvage_video
from tests.hvlm.video.backends import BACKENDS
from tests.hvlm.video.numbered import RECIPES, damage_frame, read_number, request_frames, write_video


def moov_first(path: Path, name: str) -> Path:
    recipe = RECIPES[name][1]
    return write_video(path, replace(recipe, container_options={"movflags": "faststart"}))


def cut(path: Path, packets: int) -> Path:
    """Keep this many packets and half of the next."""
    with av.open(str(path)) as container:
        at, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][packets]
    path.write_bytes(path.read_bytes()[: at + size // 2])
    with pytest.raises(VideoError) as failure:
        scan_video(path)
    assert failure.value.reason == Reason.TRUNCATED
    return path


def salvaged_frames(path: Path, backend: str) -> int:
    """How many frames are kept; each is decoded and must be the right one."""
    index = salvage_video(path)
    frames = list(range(index.num_frames))
    assert [read_number(frame) for frame in get_backend(backend).decode(request_frames(index, frames))] == frames
    assert index.duration_s == pytest.approx(0.04 * len(frames)) and index.fps == pytest.approx(25)
    return len(frames)


@pytest.mark.parametrize("name", ["cfr", "bframes", "opengop", "hevc", "mpeg4_bframes"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_mp4_keeps_the_frames_before_the_cut(tmp_path: Path, backend: str, name: str):
    path = moov_first(tmp_path / "v.mp4", name)
    whole = scan_video(path)
    kept = [salvaged_frames(cut(path, packets), backend) for packets in (47, 26)]
    assert whole.num_frames == 60 and 43 <= kept[0] <= 47 and 22 <= kept[1] <= 26


@pytest.mark.parametrize("name", ["bpyramid", "vp9_altref", "av1"])
def test_a_cut_matroska_keeps_the_frames_before_the_cut(tmp_path: Path, name: str):
    suffix, recipe = RECIPES[name]
    path = write_video(tmp_path / f"v.{suffix}", replace(recipe, container_options={"cluster_time_limit": "400"}))
    assert 22 <= salvaged_frames(cut(path, 26), "pyav") <= 27  # VP9: packets that show two frames


@pytest.mark.parametrize(("name", "least"), [("cfr", 30), ("bframes", 24), ("hevc", 24), ("mpeg4_bframes", 24)])
@pytest.mark.parametrize("kept_bytes", [0, 4])
def test_a_damaged_middle_keeps_the_frames_before_it(tmp_path: Path, name: str, least: int, kept_bytes: int):
    path = damage_frame(write_video(tmp_path / "v.mp4", RECIPES[name][1]), 30, kept_bytes)
    assert least <= salvaged_frames(path, "pyav") <= 30


@pytest.mark.parametrize("name", ["bframes", "vfr", "ts", "mpeg4_avi", "rotated_90"])
def test_of_a_whole_file_everything_is_kept(numbered_video: Callable[[str], Path], name: str):
    one, other = scan_video(numbered_video(name)), salvage_video(numbered_video(name))
    assert np.array_equal(one.pts, other.pts) and one.duration_s == other.duration_s and one.rotation == other.rotation


def test_a_cut_avi_is_counted(tmp_path: Path):
    path = cut(write_video(tmp_path / "v.avi", RECIPES["mpeg4_avi"][1]), 40)
    index = salvage_video(path)
    frames = list(range(index.num_frames))
    assert index.counted and 37 <= len(frames) <= 40
    assert [read_number(frame) for frame in get_backend("pyav").decode(request_frames(index, frames))] == frames


def test_where_nothing_can_be_decoded_it_fails(tmp_path: Path):
    path = damage_frame(moov_first(tmp_path / "v.mp4", "bframes"), 0, kept_bytes=0)
    with pytest.raises(VideoError) as failure:
        salvage_video(path)
    assert failure.value.reason in (Reason.TRUNCATED, Reason.UNREADABLE)
