import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import index as index_module
from hvlm.video.index import probe_video, scan_video
from tests.hvlm.video.numbered import RECIPES, Recipe, cut_with_edit_list, lie_about_frames, write_audio, write_video

# name, codec, upright width, upright height, rotation, frames, frames / duration
REAL = [
    ("kinetics_test.mp4", "h264", 340, 256, 0, 300, 30.0),
    ("arm_wrestling.mp4", "h264", 340, 256, 0, 280, 28.0),
    ("ucf_test.avi", "mpeg4", 320, 240, 0, 164, 25.0),
    ("flipping_a_pancake.mkv", "h264", 426, 240, 0, 310, 30.0),
    ("nasa_13013.mp4", "h264", 480, 270, 0, 390, 30000 / 1001),
    ("h264_10bits.mp4", "h264", 200, 200, 0, 30, 30.0),
    ("h265_video.mp4", "hevc", 128, 128, 0, 10, 10.0),
    ("av1_video.mkv", "av1", 640, 360, 0, 125, 25.0),
    ("video_0.mov", "h264", 568, 320, 0, 3, 30.0),
    ("video_90.mov", "h264", 320, 568, 90, 3, 30.0),
    ("unordered.mov", "h264", 50, 50, 0, 4, 32.0),
]


@pytest.mark.parametrize(("name", "codec", "width", "height", "rotation", "frames", "fps"), REAL)
def test_real_videos(shared_video: Callable[[str], Path], name, codec, width, height, rotation, frames, fps):
    index = scan_video(shared_video(name))
    assert (index.codec, index.width, index.height, index.rotation) == (codec, width, height, rotation)
    assert index.num_frames == frames
    assert index.fps == pytest.approx(fps, rel=1e-3)
    assert index.duration_s == pytest.approx(frames / fps, rel=1e-3)
    assert np.all(np.diff(index.pts) > 0)
    assert index.times_s[0] == 0


def test_the_best_of_two_video_streams_is_taken(shared_video: Callable[[str], Path]):
    assert scan_video(shared_video("nasa_13013.mp4")).stream_index == 3
    assert probe_video(shared_video("nasa_13013.mp4")).num_streams == 6


@pytest.mark.parametrize("name", list(RECIPES))
def test_numbered_videos(numbered_video: Callable[[str], Path], name: str):
    recipe = RECIPES[name][1]
    index = scan_video(numbered_video(name))
    width, height = recipe.size if recipe.rotation % 180 == 0 else recipe.size[::-1]
    assert (index.width, index.height, index.rotation) == (width, height, -recipe.rotation % 360)
    expected_s = (np.array(recipe.pts) - recipe.pts[0]) * float(recipe.time_base)
    np.testing.assert_allclose(index.times_s, expected_s, atol=1e-3)
    assert index.keyframes[0]
    assert index.counted == (RECIPES[name][0] == "avi")


def test_fps_of_a_variable_rate_is_frames_over_duration(numbered_video: Callable[[str], Path]):
    index = scan_video(numbered_video("vfr"))
    assert index.fps == pytest.approx(60 / index.duration_s)
    assert index.time_base == Fraction(1, 16000)


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path: Path):
    path = cut_with_edit_list(write_video(tmp_path / "edited.mp4", RECIPES["bframes"][1]), 5)
    index = scan_video(path)
    assert index.num_frames == 55
    assert index.times_s[-1] == pytest.approx(54 * 0.04)
    assert not index.keyframes[0]


def test_a_frame_count_that_lies_is_not_believed(tmp_path: Path):
    path = lie_about_frames(write_video(tmp_path / "lies.avi", RECIPES["mpeg4_avi"][1]), 1000)
    assert probe_video(path).num_frames == 1000
    assert scan_video(path).num_frames == 60


def failure(path: Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        scan_video(path)
    assert str(path) in caught.value.message
    return caught.value


def test_bad_files_have_typed_reasons(tmp_path: Path):
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video" * 100)
    assert failure(tmp_path / "missing.mp4").reason == Reason.STORAGE_PERMANENT
    assert failure(tmp_path / "zero.mp4").reason == Reason.UNREADABLE
    assert failure(tmp_path / "text.mp4").reason == Reason.UNREADABLE
    assert failure(tmp_path).reason == Reason.STORAGE_PERMANENT
    assert failure(write_audio(tmp_path / "audio.mp4")).reason == Reason.NO_VIDEO_STREAM


def test_a_codec_that_nothing_decodes(tmp_path: Path, numbered_video: Callable[[str], Path]):
    content = numbered_video("cfr").read_bytes()
    start = content.rindex(b"avc1")
    (tmp_path / "odd.mp4").write_bytes(content[:start] + b"zzzz" + content[start + 4 :])
    assert failure(tmp_path / "odd.mp4").reason == Reason.UNSUPPORTED_CODEC


def test_a_cut_head_is_the_files_fault_and_a_read_error_the_storages(tmp_path: Path) -> None:
    whole = long_video(tmp_path / "whole.mkv", num_frames=50).read_bytes()
    (tmp_path / "head.mkv").write_bytes(whole[:400])
    assert failure(tmp_path / "head.mkv").reason == Reason.UNREADABLE
    broken = failure(Path("/proc/self/mem"))  # the kernel answers EIO to whoever reads its first page
    assert broken.reason == Reason.STORAGE_TRANSIENT and not broken.permanent


def test_an_mp4_whose_end_is_missing_is_truncated(tmp_path: Path):
    recipe = RECIPES["bframes"][1]
    front = type(recipe)(pts=recipe.pts, options=recipe.options, container_options={"movflags": "faststart"})
    path = write_video(tmp_path / "cut.mp4", front)
    path.write_bytes(path.read_bytes()[:-1000])
    error = failure(path)
    assert error.reason == Reason.TRUNCATED
    assert "of 60 frames are missing" in error.message


def long_video(path: Path, *, num_frames: int = 300, **changes) -> Path:
    """Write 12 s (or fewer) of MPEG-4 (mkv) or VP8 (webm), in clusters of a second."""
    options = {"g": "12", "q": "3"} if path.suffix == ".mkv" else {"g": "12", "deadline": "realtime", "cpu-used": "8"}
    codec = "mpeg4" if path.suffix == ".mkv" else "libvpx"
    pts = tuple(range(0, num_frames * 40, 40))
    container = {"cluster_time_limit": "1000"} | changes
    return write_video(path, Recipe(pts=pts, codec=codec, options=options, container_options=container))


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_matroska_file_cut_in_half_is_truncated(tmp_path: Path, suffix: str):
    path = long_video(tmp_path / f"cut.{suffix}")
    assert scan_video(path).num_frames == 300
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = failure(path)
    assert error.reason == Reason.TRUNCATED and error.permanent
    assert "the file states 12.00 s, its last packet ends at " in error.message


def test_a_lost_tail_below_a_second_and_a_recording_without_duration_are_scanned(tmp_path: Path):
    path = long_video(tmp_path / "short.mkv", num_frames=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    assert 0 < scan_video(path).num_frames < 20
    path = long_video(tmp_path / "live.mkv", live="1")
    assert scan_video(path).num_frames == 300
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < scan_video(path).num_frames < 300


def state_duration(path: Path, duration_ms: float) -> None:
    """Overwrite the duration that a Matroska file states."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", duration_ms)
    path.write_bytes(data)


def test_a_long_last_frame_is_no_loss_where_the_segment_is_whole(tmp_path: Path):
    path = long_video(tmp_path / "held.mkv", num_frames=50)
    state_duration(path, 12_000)
    assert scan_video(path).num_frames == 50
    path.write_bytes(path.read_bytes()[:-1])
    assert failure(path).reason == Reason.TRUNCATED


def test_a_video_shorter_than_the_sound_beside_it_is_whole(tmp_path: Path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(50):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        for number in range(80):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, number * 800
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    index = scan_video(path)
    assert index.num_frames == 50
    index_module._check_end(index, 8.0)  # a live file states neither size nor duration
    with pytest.raises(VideoError, match=r"states 12\.00 s, its last packet ends at 8\.00 s"):
        index_module._check_end(index, 12.0)


def test_huge_frames_are_refused(numbered_video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_module, "MAX_SIDE_PX", 159)
    assert failure(numbered_video("cfr")).reason == Reason.TOO_LARGE
    monkeypatch.setattr(index_module, "MAX_SIDE_PX", 160)
    monkeypatch.setattr(index_module, "MAX_PIXELS", 160 * 128 - 1)
    assert failure(numbered_video("cfr")).reason == Reason.TOO_LARGE


def test_probe_reads_headers(numbered_video: Callable[[str], Path]):
    probe = probe_video(numbered_video("bframes"))
    assert (probe.codec, probe.num_frames, probe.width, probe.height, probe.num_streams) == ("h264", 60, 160, 128, 1)
    assert probe.duration_s == pytest.approx(2.4)
    assert probe.fps == pytest.approx(25.0)
    assert probe_video(numbered_video("bpyramid")).num_frames == 0


def test_a_video_of_no_frames(tmp_path: Path):
    path = write_video(tmp_path / "none.mp4", RECIPES["bframes"][1])
    cut_with_edit_list(path, 60)
    assert failure(path).reason == Reason.ZERO_FRAMES
