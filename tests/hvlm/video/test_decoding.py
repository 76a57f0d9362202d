"""Parity: whatever the file and the backend, frame k of the index is picture k, upright, in nearly the same pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvlm.errors import Reason, UserError, VideoError
from hvlm.video import packets
from hvlm.video.decoding import decode_views, get_backend
from hvlm.video.index import VideoStream, probe_video, scan_video
from hvlm.video.resizing import resize_and_crop
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from hvlm.video.views import FrameView, cut_clips
from tests.hvlm.video.backends import BACKENDS, PARITY, decode, torchcodec_is_importable
from tests.hvlm.video.numbered import (
    RECIPES,
    cut_with_edit_list,
    damage_frame,
    lie_about_frames,
    read_number,
    request_frames,
    write_video,
)

WHOLE = FrameView(sampling=SamplingConfig(kind="every_n", n=1), resize=(96, 96), crop=96, interpolation="bilinear")
CLIP = FrameView(sampling=SamplingConfig(fps=1.0), resize=64, crop=64)
C3D = FrameView(sampling=SamplingConfig(fps=25.0), clip_frames=16, clip_stride=16, resize=(96, 120), crop=80)


def numbers(path: Path, backend: str, frames: list[int]) -> list[int]:
    return [read_number(frame) for frame in decode(backend, request_frames(scan_video(path), frames))]


@pytest.mark.parametrize(("backend", "name"), PARITY)
def test_frames_are_those_asked_for(
    numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, backend: str
):
    path = numbered_video(name)
    request = request_frames(scan_video(path), list(range(60)))
    pictures = list(map(np.copy, decode(backend, request)))
    assert [read_number(picture) for picture in pictures] == list(range(60))
    for picture, reference in zip(pictures, get_backend("pyav").decode(request), strict=True):
        assert picture.shape == reference.shape
        assert np.abs(picture.astype(int) - reference).mean() < (2.0 if "ten_bit" in name else 0.5)
    rng = np.random.default_rng(len(name))
    for skipped, seek_s in (
        (packets.MIN_SKIPPED_FRAMES, packets.MIN_SEEK_S),
        (0, 0.0),
    ):  # the second seeks all the time
        monkeypatch.setattr(packets, "MIN_SKIPPED_FRAMES", skipped)
        monkeypatch.setattr(packets, "MIN_SEEK_S", seek_s)
        for _ in range(3):
            wanted = sorted(rng.choice(60, rng.integers(1, 7), replace=False).tolist())
            assert numbers(path, backend, wanted) == wanted


@pytest.mark.parametrize(("backend", "name"), PARITY)
def test_keyframes_are_those_of_the_index(numbered_video: Callable[[str], Path], name: str, backend: str):
    path = numbered_video(name)
    index = scan_video(path)
    view = FrameView(sampling=SamplingConfig(kind="keyframes"), resize=(96, 96), crop=96, interpolation="bilinear")
    read = [
        read_number(frame)
        for segment in plan_segments(index, {"key": view}, 1.0)
        for frame in decode_views(index.stream, backend, segment, {"key": view})["key"]
    ]
    assert read == np.flatnonzero(index.keyframes).tolist() and len(read) >= 3


@pytest.mark.parametrize(("backend", "name"), PARITY)
def test_spans_give_the_pictures_of_their_rows_alone(numbered_video: Callable[[str], Path], name: str, backend: str):
    index = scan_video(numbered_video(name))
    sixth = index.duration_s / 6
    spans = [(1.1 * sixth, 1.2 * sixth), (3.4 * sixth, 4.9 * sixth)]
    fps = 40 / index.duration_s
    row = FrameView(sampling=SamplingConfig(kind="spans", fps=fps), resize=96, crop=96, interpolation="bilinear")
    views = {"row": replace(row, resize=(96, 96)), "clip": replace(row, resize=(96, 96), clip_frames=4, clip_stride=5)}
    read: dict[str, list[int]] = {"row": [], "clip": []}
    for segment in plan_segments(index, views, index.duration_s / 3.5, spans):
        decoded = decode_views(index.stream, backend, segment, views)
        for view, frames in decoded.items():
            clips = cut_clips(frames, segment.views[view].num_rows, views[view]) if len(frames) else ()
            read[view] += [read_number(frame) for clip in clips for frame in clip]
    # 40 places, 6 2/3 to a sixth: the spans lie over places 7.3 to 8 and 22.7 to 32.7.
    on_screen = [int(np.flatnonzero(index.times_s <= place / fps + 1e-6)[-1]) for place in range(40)]
    assert read["row"] == [on_screen[place] for place in (7, *range(22, 33))]
    assert read["clip"] == [on_screen[first + k] for first in (5, 20, 25, 30) for k in range(4)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_edit_lists_hide_the_same_frames(tmp_path: Path, backend: str):
    path = cut_with_edit_list(write_video(tmp_path / "edited.mp4", RECIPES["bframes"][1]), 5)
    assert numbers(path, backend, [0, 1, 7, 30, 54]) == [5, 6, 12, 35, 59]
    path = cut_with_edit_list(write_video(tmp_path / "edited.mp4", RECIPES["bframes"][1]), 5, last=8)
    assert numbers(path, backend, list(range(47))) == list(range(5, 52))
    assert scan_video(path).num_frames == 47


@pytest.mark.parametrize("stated", [1000, 30])
@pytest.mark.parametrize("name", ["mpeg4_avi", "bframes"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_count_that_lies_changes_nothing(tmp_path: Path, backend: str, name: str, stated: int):
    path = lie_about_frames(write_video(tmp_path / f"lies.{RECIPES[name][0]}", RECIPES[name][1]), stated)
    assert probe_video(path).num_frames == stated
    assert numbers(path, backend, [0, 1, 29, 30, 59]) == [0, 1, 29, 30, 59]


@pytest.mark.parametrize("backend", BACKENDS)
def test_variable_rate_is_sampled_by_time(numbered_video: Callable[[str], Path], backend: str):
    recipe = RECIPES["vfr"][1]
    index = scan_video(numbered_video("vfr"))
    view = replace(WHOLE, sampling=SamplingConfig(fps=7.0))
    (segment,) = plan_segments(index, {"v": view}, 60.0)
    frames = decode_views(index.stream, backend, segment, {"v": view})["v"]
    on_screen = [max(k for k in range(60) if recipe.pts[k] <= 1000 * t / 7 + 1e-3) for t in range(len(frames))]
    assert [read_number(frame) for frame in frames] == on_screen


@pytest.mark.parametrize("name", ["kinetics_test.mp4", "ucf_test.avi", "flipping_a_pancake.mkv", "nasa_13013.mp4"])
def test_real_videos_agree(shared_video: Callable[[str], Path], name: str):
    check_agreement(shared_video(name), 0.5)


@pytest.mark.parametrize("name", ["h265_video.mp4", "av1_video.mkv", "video_0.mov", "video_90.mov", "unordered.mov"])
def test_real_codecs_and_rotations_agree(shared_video: Callable[[str], Path], name: str):
    check_agreement(shared_video(name), 0.5)


def test_ten_bit_agrees_within_two_levels(shared_video: Callable[[str], Path]):
    check_agreement(shared_video("h264_10bits.mp4"), 2.0)


def check_agreement(path: Path, mean_levels: float) -> None:
    index = scan_video(path)
    wanted = list(range(0, index.num_frames, max(1, index.num_frames // 12)))
    request = request_frames(index, wanted)
    pyav = [frame.copy() for frame in get_backend("pyav").decode(request)]
    assert len(pyav) == len(wanted)
    for backend in ("decord", "torchcodec") if torchcodec_is_importable() else ("decord",):
        other_frames = [frame.copy() for frame in decode(backend, request)]
        for one, other in zip(pyav, other_frames, strict=True):
            assert one.shape == other.shape == (index.height, index.width, 3)
            assert np.abs(one.astype(int) - other).mean() < mean_levels, backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_pass_feeds_all_views(numbered_video: Callable[[str], Path], backend: str):
    index = scan_video(numbered_video("bframes"))
    views = {"clip": CLIP, "c3d": C3D, "whole": WHOLE}
    pictures = list(map(np.copy, get_backend(backend).decode(request_frames(index, list(range(60))))))
    for segment in plan_segments(index, views, 1.0):
        decoded = decode_views(index.stream, backend, segment, views)
        assert decoded.keys() == views.keys()
        for name, view in views.items():
            plan = segment.views[name]
            assert decoded[name].shape == (len(plan.frame_index), view.crop, view.crop, 3)
            for number, frame in zip(plan.frame_index, decoded[name], strict=True):
                assert np.array_equal(frame, resize_and_crop(pictures[number], view))


def test_each_frame_is_decoded_once_for_all_views(numbered_video, monkeypatch: pytest.MonkeyPatch):
    index = scan_video(numbered_video("bframes"))
    asked = []
    backend = get_backend("pyav")
    decode = type(backend).decode
    monkeypatch.setattr(type(backend), "decode", lambda self, request: asked.append(request) or decode(self, request))
    views = {"clip": CLIP, "c3d": C3D}
    (segment,) = plan_segments(index, views, 60.0)
    decode_views(index.stream, "pyav", segment, views)
    assert len(asked) == 1
    clip, c3d = (segment.views[name].frame_index.tolist() for name in ("clip", "c3d"))
    assert asked[0].frame_index.tolist() == sorted({*clip, *c3d})
    assert set(clip) & set(c3d)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_padded_clip_repeats_pixels(tmp_path: Path, backend: str):
    recipe = RECIPES["bframes"][1]
    path = write_video(tmp_path / "short.mp4", replace(recipe, pts=recipe.pts[:3]))
    index = scan_video(path)
    (segment,) = plan_segments(index, {"c3d": C3D}, 60.0)
    frames = decode_views(VideoStream(str(path), 0, 0), backend, segment, {"c3d": C3D})["c3d"]
    assert len(frames) == 16
    assert all(np.array_equal(frame, frames[2]) for frame in frames[3:])
    assert not np.array_equal(frames[1], frames[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_stream_is_truncated_with_numbers(shared_video: Callable[[str], Path], backend: str):
    index = scan_video(shared_video("corrupted.mp4"))
    views = {"clip": replace(CLIP, sampling=SamplingConfig(fps=1.0))}
    (segment,) = plan_segments(index, views, 60.0)
    with pytest.raises(VideoError, match=r"\d of 5 wanted frames") as failure:
        decode_views(index.stream, backend, segment, views)
    assert failure.value.reason == Reason.TRUNCATED


@pytest.mark.parametrize("codec", ["cfr", "bframes", "hevc"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_is_never_another_where_one_is_damaged(tmp_path: Path, backend: str, codec: str):
    """FFmpeg drops the damaged HEVC frame in silence: a decoder that counts what comes out is one off from there."""
    path = damage_frame(write_video(tmp_path / "damaged.mp4", RECIPES[codec][1]), 30)
    for wanted in ([0, 10, 30], list(range(60))):
        with pytest.raises(VideoError) as failure:
            numbers(path, backend, wanted)
        assert failure.value.reason == Reason.TRUNCATED
    assert numbers(path, backend, [0, 10, 20]) == [0, 10, 20]


def test_a_frame_that_ffmpeg_made_up_is_refused(tmp_path: Path):
    """It fills frames of an MPEG-4 video from others and goes on; only PyAV shows that it did."""
    path = damage_frame(write_video(tmp_path / "damaged.mp4", RECIPES["mpeg4_bframes"][1]), 30)
    for wanted in ([0, 10, 29], [0, 10, 35]):
        with pytest.raises(VideoError, match=r"2 of 3 wanted frames"):
            numbers(path, "pyav", wanted)
    assert numbers(path, "pyav", [0, 10, 27]) == [0, 10, 27]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hole_in_the_file_is_a_failure(tmp_path: Path, backend: str):
    """Frame 35 leans on the lost one: decoders would show another picture for it."""
    path = damage_frame(write_video(tmp_path / "hole.mp4", RECIPES["cfr"][1]), 30, kept_bytes=0)
    with pytest.raises(VideoError, match=r"packet at 1\.200 s lies in a hole") as failure:
        numbers(path, backend, [35])
    assert failure.value.reason == Reason.TRUNCATED
    assert numbers(path, backend, [0, 10, 20, 59]) == [0, 10, 20, 59]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_vanished_or_emptied_has_a_typed_reason(tmp_path: Path, backend: str):
    path = write_video(tmp_path / "gone.mp4", RECIPES["cfr"][1])
    request = request_frames(scan_video(path), [0, 5])
    path.write_bytes(b"")
    with pytest.raises(VideoError) as emptied:
        list(get_backend(backend).decode(request))
    assert emptied.value.reason == Reason.UNREADABLE
    path.unlink()
    with pytest.raises(VideoError) as missing:
        list(get_backend(backend).decode(request))
    assert missing.value.reason == Reason.STORAGE_PERMANENT


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_segment_without_rows_decodes_nothing(numbered_video: Callable[[str], Path], backend: str):
    index = scan_video(numbered_video("cfr"))
    empty = plan_segments(index, {"clip": CLIP}, 0.5)[1]
    assert empty.views["clip"].num_rows == 0
    assert decode_views(index.stream, backend, empty, {"clip": CLIP})["clip"].shape == (0, 64, 64, 3)


def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError, match="one of decord, pyav, torchcodec"):
        get_backend("opencv")  # type: ignore[arg-type]
