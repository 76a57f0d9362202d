"""The broken files are broken in the way that their names say, and in no other."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from hvlm.synthetic.bad_files import write_audio_only, write_empty, write_truncated
from hvlm.synthetic.rendering import VideoFormat, render_video
from hvlm.synthetic.world import WorldConfig, make_world


def test_the_truncated_file_promises_more_frames_than_it_holds(tmp_path: Path) -> None:
    script = make_world(WorldConfig(num_videos=1, min_duration_s=6.0, max_duration_s=6.0))[0]
    video_format = VideoFormat("mp4", 64, 48, Fraction(12), 28)
    whole = render_video(script, video_format, tmp_path / "whole.mp4")
    write_truncated(script, video_format, tmp_path / "cut.mp4")
    decoded = 0
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.streams.video[0].frames == whole.num_frames
        with pytest.raises(av.FFmpegError):
            for _ in container.decode(video=0):
                decoded += 1
    assert 0 < decoded < whole.num_frames


def test_the_empty_file_is_empty(tmp_path: Path) -> None:
    write_empty(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").stat().st_size == 0


def test_the_audio_file_plays_five_seconds_and_has_no_picture(tmp_path: Path) -> None:
    write_audio_only(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.video
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 16_000 == pytest.approx(5.0, abs=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
