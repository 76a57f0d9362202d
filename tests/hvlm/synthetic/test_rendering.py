"""Rendered files are real videos with the script's frames and times, and equal scripts give equal bytes."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.drawing import FramePainter
from hvlm.synthetic.rendering import NTSC_RATE, PictureConfig, VideoFormat, format_of, render_video, rendered_duration_s
from hvlm.synthetic.world import VideoScript, WorldConfig, make_world

PLAIN = VideoFormat("mp4", 64, 48, Fraction(12), 28)
FORMATS = {
    "plain": PLAIN,
    "variable": replace(PLAIN, variable_rate=True),
    "ntsc": replace(PLAIN, fps=NTSC_RATE),
    "matroska": replace(PLAIN, container="matroska"),
    "uneven": replace(PLAIN, width=54, height=42),
}


@pytest.fixture(scope="module")
def script() -> VideoScript:
    return make_world(WorldConfig(num_videos=1, min_duration_s=6.0, max_duration_s=6.0))[0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_file_holds_the_frames_and_the_time_that_were_promised(
    tmp_path: Path, script: VideoScript, name: str
) -> None:
    video_format = FORMATS[name]
    path = tmp_path / f"a{video_format.suffix}"
    rendered = render_video(script, video_format, path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        assert (stream.codec_context.name, stream.width, stream.height) == (
            "h264",
            video_format.width,
            video_format.height,
        )
        starts = sorted(packet.pts for packet in packets)
        last = max(packets, key=lambda packet: packet.pts)
        duration_s = float((last.pts + last.duration - starts[0]) * stream.time_base)
        time_base = float(stream.time_base)
    assert starts[0] == 0
    assert len(packets) == rendered.num_frames
    assert duration_s == pytest.approx(rendered.duration_s, abs=2e-3)
    assert rendered.duration_s == pytest.approx(6.0, abs=1 / 12)
    assert any(packet.pts != packet.dts for packet in packets)  # B-frames
    gaps_s = np.diff(starts) * time_base
    if video_format.variable_rate:
        assert gaps_s.max() > 1.5 * gaps_s.min()
        assert 0.5 * 72 < rendered.num_frames < 72
    else:
        np.testing.assert_allclose(gaps_s, float(1 / video_format.fps), atol=1.1e-3)


@pytest.mark.parametrize("name", ["plain", "variable"])
def test_each_frame_shows_the_script_at_its_own_time(tmp_path: Path, script: VideoScript, name: str) -> None:
    video_format = replace(FORMATS[name], crf=10)
    render_video(script, video_format, tmp_path / "a.mp4")
    painter = FramePainter(script, 64, 48)
    with av.open(str(tmp_path / "a.mp4")) as container:
        for frame in container.decode(video=0):
            difference = np.abs(frame.to_ndarray(format="rgb24").astype(float) - painter.draw(frame.time))
            assert difference.mean() < 6.0


@pytest.mark.parametrize("name", FORMATS)
def test_equal_scripts_give_equal_bytes(tmp_path: Path, script: VideoScript, name: str) -> None:
    video_format = FORMATS[name]
    paths = [tmp_path / f"{letter}{video_format.suffix}" for letter in "ab"]
    for path in paths:
        render_video(script, video_format, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_failed_rendering_leaves_nothing_behind(
    tmp_path: Path, script: VideoScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(self: FramePainter, time_s: float) -> np.ndarray:
        if time_s > 3.0:
            raise OSError(28, "No space left on device")
        return np.zeros((48, 64, 3), np.uint8)

    monkeypatch.setattr(FramePainter, "draw", draw)
    with pytest.raises(OSError, match="No space"):
        render_video(script, PLAIN, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_every_nth_video_has_another_format() -> None:
    picture = PictureConfig(vary_every=4)
    formats = [format_of(index, picture) for index in range(20)]
    usual = formats[0]
    assert [index for index, found in enumerate(formats) if found != usual] == [3, 7, 11, 15, 19]
    assert len(set(formats)) == 6
    assert {found.suffix for found in formats} == {".mp4", ".mkv"}
    assert {format_of(index, PictureConfig(vary_every=0)) for index in range(20)} == {usual}


def test_the_promised_duration_is_a_whole_number_of_frames(script: VideoScript) -> None:
    odd = replace(script, duration_s=6.06)
    assert rendered_duration_s(odd, PLAIN) == pytest.approx(73 / 12)


@pytest.mark.parametrize(
    "values", [{"width_px": 65}, {"height_px": 8}, {"fps": 0}, {"fps": 7}, {"crf": 60}, {"vary_every": -1}]
)
def test_values_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(UserError, match="expected"):
        PictureConfig(**values)
