from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.video.index import VideoIndex
from hvlm.video.sampling import SamplingConfig, sample_frames


def made_index(pts_ms: list[int], last_ms: int = 40) -> VideoIndex:
    pts = np.array(pts_ms, np.int64)
    duration_s = (pts_ms[-1] + last_ms - pts_ms[0]) / 1000
    return VideoIndex(
        path="made.mp4",
        stream_index=0,
        codec="h264",
        width=160,
        height=128,
        rotation=0,
        fps=len(pts) / duration_s,
        duration_s=duration_s,
        time_base=Fraction(1, 1000),
        pts=pts,
        keyframes=np.arange(len(pts)) % 12 == 0,
        counted=False,
    )


def test_fps_takes_the_frame_on_screen_at_each_grid_time():
    index = made_index([1000, 1040, 1600, 1640, 2900], last_ms=200)  # 2.1 s, the first frame stands at 1 s
    samples = sample_frames(index, SamplingConfig(fps=2.0))
    assert samples.time_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert samples.frame_index.tolist() == [0, 1, 3, 3, 4]
    assert (samples.stride_s, samples.offset_s) == (0.5, 0.0)


@pytest.mark.parametrize(("fps", "expected"), [(25.0, 25), (1.0, 1), (0.1, 1), (3.0, 3), (50.0, 50)])
def test_grid_covers_the_half_open_duration(fps: float, expected: int):
    assert len(sample_frames(made_index(list(range(0, 1000, 40))), SamplingConfig(fps=fps)).frame_index) == expected


@pytest.mark.parametrize(("units", "step"), [(30000, 1001), (24000, 1001), (60000, 1001), (90000, 3003), (15360, 512)])
def test_a_grid_of_the_video_s_own_rate_takes_every_frame_once(units: int, step: int):
    """k / fps and pts * time base differ by rounding only, and must not fall one frame back."""
    made = made_index(list(range(0, 3000 * step, step)), last_ms=step)
    index = replace(made, time_base=Fraction(1, units), duration_s=3000 * step / units)
    assert sample_frames(index, SamplingConfig(fps=units / step)).frame_index.tolist() == list(range(3000))


def test_keyframes_are_taken_where_they_lie():
    index = made_index(list(range(0, 1200, 40)))
    samples = sample_frames(index, SamplingConfig(kind="keyframes"))
    assert samples.frame_index.tolist() == [0, 12, 24]
    assert samples.time_s.tolist() == [0.0, 0.48, 0.96]
    assert (samples.stride_s, samples.offset_s) == (pytest.approx(0.4), 0.0)
    none = sample_frames(replace(index, keyframes=np.zeros(30, bool)), SamplingConfig(kind="keyframes"))
    assert none.frame_index.tolist() == [0]


def test_every_n_and_uniform_n():
    index = made_index(list(range(0, 1000, 40)))
    every = sample_frames(index, SamplingConfig(kind="every_n", n=10))
    assert every.frame_index.tolist() == [0, 10, 20]
    assert every.time_s.tolist() == [0.0, 0.4, 0.8]
    assert every.stride_s == pytest.approx(0.4)
    uniform = sample_frames(index, SamplingConfig(kind="uniform_n", n=4))
    assert uniform.time_s.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert uniform.frame_index.tolist() == [3, 9, 15, 21]
    assert (uniform.stride_s, uniform.offset_s) == (0.25, 0.125)


@pytest.mark.parametrize("sampling", [SamplingConfig(fps=0.01), SamplingConfig(kind="every_n", n=100)])
def test_at_least_one_frame(sampling: SamplingConfig):
    assert sample_frames(made_index([0]), sampling).frame_index.tolist() == [0]


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"fps": -1.0}, {"fps": 1e9}, {"kind": "uniform_n", "n": -1}])
def test_out_of_range_is_refused(wrong: dict[str, float]):
    with pytest.raises(UserError, match="sampling"):
        SamplingConfig(**wrong)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "uniform_n"}, "sampling.n: got 0 with kind: uniform_n; expected 1 or more"),
        ({"kind": "every_n"}, "sampling.n: got 0 with kind: every_n"),
        ({"n": 8}, "sampling.n: got 8 with kind: fps; expected no n"),
        ({"kind": "keyframes", "n": 1}, "sampling.n: got 1 with kind: keyframes"),
        ({"kind": "every_n", "n": 2, "fps": 4.0}, "sampling.fps: got 4.0 with kind: every_n; expected no fps"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(values, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        SamplingConfig(**values)
