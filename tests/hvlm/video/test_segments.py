from dataclasses import replace

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.video.sampling import SamplingConfig, sample_frames
from hvlm.video.segments import plan_segments
from hvlm.video.views import FrameView, num_rows
from tests.hvlm.video.test_sampling import made_index

CLIP = FrameView(sampling=SamplingConfig(fps=1.0))
C3D = FrameView(sampling=SamplingConfig(fps=25.0), clip_frames=16, clip_stride=16, resize=(128, 171), crop=112)


def test_rows_go_to_the_segment_of_their_start_time():
    index = made_index(list(range(0, 5000, 40)))  # 5 s at 25 fps
    segments = plan_segments(index, {"clip": CLIP, "c3d": C3D}, 2.0)
    assert [s.span_s for s in segments] == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    assert [(s.segment_index, s.num_segments) for s in segments] == [(0, 3), (1, 3), (2, 3)]
    assert [s.views["clip"].row_time_s.tolist() for s in segments] == [[0.0, 1.0], [2.0, 3.0], [4.0]]
    # 125 samples are 7 clips, starting every 0.64 s: 0, .64, 1.28, 1.92 | 2.56, 3.2, 3.84 |
    assert [(s.views["c3d"].row_start, s.views["c3d"].num_rows) for s in segments] == [(0, 4), (4, 3), (7, 0)]
    # The clip that starts at 1.92 s reaches to 2.56 s: its tail is decoded with its own segment.
    assert segments[0].views["c3d"].frame_index.tolist() == list(range(64))
    assert segments[2].views["c3d"].frame_index.size == 0


def test_a_short_video_repeats_its_last_frame():
    index = made_index([0, 40, 80])
    (segment,) = plan_segments(index, {"c3d": C3D}, 60.0)
    plan = segment.views["c3d"]
    assert plan.num_rows == 1
    assert plan.frame_index.tolist() == [0, 1] + [2] * 14
    assert plan.frame_pts.tolist() == [0, 40] + [80] * 14


def test_segments_without_rows_keep_their_number():
    index = made_index([0, 40, 9000])
    segments = plan_segments(index, {"v": replace(CLIP, sampling=SamplingConfig(kind="every_n", n=1))}, 2.0)
    assert [s.span_s for s in segments] == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0), (8.0, index.duration_s)]
    assert [(s.segment_index, s.num_segments) for s in segments] == [(k, 5) for k in range(5)]
    assert [s.views["v"].num_rows for s in segments] == [2, 0, 0, 0, 1]


def test_row_times_are_the_real_ones():
    index = made_index([500, 900, 1700, 2600])
    (segment,) = plan_segments(index, {"clip": CLIP}, 60.0)
    assert segment.views["clip"].frame_index.tolist() == [0, 1, 2]
    assert segment.views["clip"].row_time_s.tolist() == [0.0, 0.4, 1.2]


def test_seek_points_are_those_a_segment_can_use():
    index = made_index(list(range(0, 5000, 40)))  # keyframes every 12 frames
    middle = plan_segments(index, {"clip": CLIP}, 2.0)[1]  # frames 50 and 75
    assert middle.seek_index.tolist() == [48, 60, 72]
    assert middle.seek_pts.tolist() == [1920, 2400, 2880]
    counted = plan_segments(replace(index, counted=True), {"clip": CLIP}, 2.0)[1]
    assert counted.counted and counted.seek_index.size == 0


@pytest.mark.parametrize("seed", range(30))
def test_segments_concatenate_to_the_whole_video(seed: int):
    rng = np.random.default_rng(seed)
    pts = np.cumsum(rng.integers(1, 200, rng.integers(1, 400))) + int(rng.integers(0, 5000))
    index = made_index(pts.tolist())
    fps, n = float(rng.uniform(0.2, 40)), int(rng.integers(1, 60))
    sampling = (
        SamplingConfig(fps=fps),
        SamplingConfig(kind="every_n", n=n),
        SamplingConfig(kind="uniform_n", n=n),
    )[seed % 3]
    view = FrameView(sampling=sampling, clip_frames=int(rng.integers(1, 20)), clip_stride=int(rng.integers(1, 25)))
    segments = plan_segments(index, {"v": view, "clip": CLIP}, float(rng.uniform(0.3, 30)))
    for name, one in (("v", view), ("clip", CLIP)):
        samples = sample_frames(index, one.sampling)
        rows = num_rows(len(samples.frame_index), one)
        plans = [segment.views[name] for segment in segments]
        assert [plan.row_start for plan in plans] == np.cumsum([0, *(p.num_rows for p in plans)])[:-1].tolist()
        assert sum(plan.num_rows for plan in plans) == rows
        starts = samples.time_s[np.arange(rows) * one.clip_stride]
        for segment, plan in zip(segments, plans, strict=True):
            stride = min(one.clip_stride, one.clip_frames)
            for row in range(plan.num_rows):
                first = (plan.row_start + row) * one.clip_stride
                wanted = np.minimum(np.arange(first, first + one.clip_frames), len(samples.frame_index) - 1)
                got = plan.frame_index[row * stride : row * stride + one.clip_frames]
                assert got.tolist() == samples.frame_index[wanted].tolist()
                start_s = starts[plan.row_start + row]
                assert segment.span_s[0] - 1e-5 <= start_s < segment.span_s[1] + 1e-5
                assert plan.row_time_s[row] == pytest.approx(index.times_s[got[0]])
            assert np.array_equal(index.pts[plan.frame_index], plan.frame_pts)


SPANS = SamplingConfig(kind="spans", fps=25.0)


def test_spans_have_the_rows_of_the_grid_that_meet_them():
    index = made_index(list(range(0, 5000, 40)))
    views = {
        "clip": replace(CLIP, sampling=replace(SPANS, fps=2.0)),
        "c3d": replace(C3D, sampling=SPANS),
        "whole": replace(CLIP, sampling=SamplingConfig(fps=2.0)),
    }
    spans = [(1.7, 1.8), (3.3, 4.0), (4.9, 90.0)]
    segments = plan_segments(index, views, 2.0, spans)
    assert [s.views["clip"].row_time_s.tolist() for s in segments] == [[1.48], [3.0, 3.48], [4.48]]
    assert [s.views["clip"].frame_index.tolist() for s in segments] == [[37], [75, 87], [112]]
    # Clips of 0.64 s: that at 1.28 s, then those at 3.2 and 3.84 s; the last ends at 4.48 s, none has the video's end.
    assert [(s.views["c3d"].row_start, s.views["c3d"].num_rows) for s in segments] == [(0, 1), (1, 2), (3, 0)]
    assert segments[0].views["c3d"].frame_index.tolist() == list(range(32, 48))
    assert segments[1].views["c3d"].frame_index.tolist() == list(range(80, 112))
    assert [s.views["whole"].num_rows for s in segments] == [4, 4, 2]
    assert [s.span_s for s in segments] == [s.span_s for s in plan_segments(index, {"c3d": C3D}, 2.0)]
    for nothing in ((), [(7.0, 9.0)]):
        assert [s.views["clip"].num_rows for s in plan_segments(index, views, 2.0, nothing)] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_spans_are_those_of_the_whole_video_with_others_left_out(seed: int):
    rng = np.random.default_rng(seed)
    index = made_index(np.cumsum(rng.integers(1, 200, rng.integers(1, 400))).tolist())
    frames = int(rng.integers(1, 8))
    view = FrameView(
        sampling=replace(SPANS, fps=float(rng.uniform(0.2, 40))),
        clip_frames=frames,
        clip_stride=frames + int(rng.integers(0, 5)),
    )
    begins = rng.uniform(0, index.duration_s, 3)
    spans = np.stack([begins, begins + rng.uniform(0.01, 3, 3)], axis=1).tolist()
    whole = replace(view, sampling=replace(view.sampling, kind="fps"))
    (plan,) = (s.views["v"] for s in plan_segments(index, {"v": whole}, 1e6))
    starts = np.arange(plan.num_rows) * view.clip_stride / view.sampling.fps
    length = frames / view.sampling.fps
    kept = [any(min(end, s + length) - max(begin, s) > 1e-6 for begin, end in spans) for s in starts]
    plans = [s.views["v"] for s in plan_segments(index, {"v": view}, float(rng.uniform(0.3, 30)), spans)]
    assert [p.row_start for p in plans] == np.cumsum([0, *(p.num_rows for p in plans)])[:-1].tolist()
    assert np.concatenate([p.row_time_s for p in plans]).tolist() == plan.row_time_s[kept].tolist()
    clips = plan.frame_index.reshape(plan.num_rows, frames)[kept]
    assert np.concatenate([p.frame_index for p in plans]).tolist() == clips.ravel().tolist()


def test_a_segment_of_no_length_is_refused():
    with pytest.raises(UserError, match="segment_s"):
        plan_segments(made_index([0]), {"clip": CLIP}, 0.0)
