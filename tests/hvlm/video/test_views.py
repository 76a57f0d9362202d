import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView, cut_clips, num_rows


@pytest.mark.parametrize(
    ("samples", "frames", "stride", "rows"),
    [
        (0, 16, 16, 0),
        (1, 1, 1, 1),
        (7, 1, 1, 7),
        (5, 16, 16, 1),
        (16, 16, 16, 1),
        (31, 16, 16, 1),
        (32, 16, 16, 2),
        (32, 16, 8, 3),
        (10, 2, 5, 2),
        (11, 2, 5, 2),
        (12, 2, 5, 3),
    ],
)
def test_num_rows(samples: int, frames: int, stride: int, rows: int):
    assert num_rows(samples, FrameView(clip_frames=frames, clip_stride=stride)) == rows


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_clips_are_windows_of_the_needed_frames(stride: int):
    view = FrameView(clip_frames=3, clip_stride=stride, crop=2)
    rows = 4
    needed = sorted({row * stride + k for row in range(rows) for k in range(3)})
    frames = np.zeros((len(needed), 2, 2, 3), np.uint8) + np.array(needed, np.uint8)[:, None, None, None]
    clips = cut_clips(frames, rows, view)
    assert clips.shape == (rows, 3, 2, 2, 3)
    assert clips[..., 0, 0, 0].tolist() == [[row * stride + k for k in range(3)] for row in range(rows)]
    assert np.shares_memory(frames, clips)


@pytest.mark.parametrize("wrong", [{"clip_frames": 0}, {"clip_stride": 0}, {"crop": 0}, {"crop": 225}])
def test_out_of_range_is_refused(wrong: dict[str, int]):
    with pytest.raises(UserError, match="view"):
        FrameView(**wrong)


def test_spans_need_clips_that_do_not_overlap():
    spans = SamplingConfig(kind="spans")
    FrameView(sampling=spans, clip_frames=4, clip_stride=4)
    with pytest.raises(UserError, match=r"clip_stride with sampling.kind: spans: got 3; .* set clip_stride to 4"):
        FrameView(sampling=spans, clip_frames=4, clip_stride=3)


def test_crop_beyond_the_shorter_of_two_sides_is_refused():
    with pytest.raises(UserError, match="at most 128"):
        FrameView(resize=(128, 171), crop=129)
