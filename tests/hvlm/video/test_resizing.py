import warnings

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hvlm.video.resizing import resize_and_crop, resized_size
from hvlm.video.views import FrameView

CLIP = FrameView()
C3D = FrameView(resize=(128, 171), crop=112, interpolation="bilinear")
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def picture(height: int, width: int, blur: float) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3))
    smooth = gaussian_filter(noise, (blur, blur, 0)) if blur else noise
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


@pytest.mark.parametrize("view", [CLIP, C3D])
@pytest.mark.parametrize("blur", [0.0, 1.5])
@pytest.mark.parametrize("size", [(256, 340), (240, 320), (180, 320), (568, 320), (127, 161), (100, 90), (480, 854)])
def test_values_are_those_of_pil(view: FrameView, size: tuple[int, int], blur: float):
    frame = picture(*size, blur)
    height, width = resized_size(*size, view.resize)
    resized = np.asarray(Image.fromarray(frame).resize((width, height), FILTERS[view.interpolation]))
    top, left = round((height - view.crop) / 2), round((width - view.crop) / 2)
    expected = resized[top : top + view.crop, left : left + view.crop].astype(int)
    got = resize_and_crop(frame, view)
    assert got.shape == (view.crop, view.crop, 3)
    assert got.flags.c_contiguous
    assert np.abs(got.astype(int) - expected).max() <= 2


def test_shorter_side_follows_torchvision():
    assert resized_size(256, 340, 224) == (224, 297)
    assert resized_size(340, 256, 224) == (297, 224)
    assert resized_size(720, 1280, 224) == (224, 398)
    assert resized_size(50, 50, 224) == (224, 224)
    assert resized_size(256, 340, (128, 171)) == (128, 171)


def test_any_strides_give_the_same():
    frame = picture(256, 340, 1.0)
    padded = np.zeros((256, 352, 3), np.uint8)
    padded[:, :340] = frame
    turned = np.rot90(np.ascontiguousarray(np.rot90(frame, 1)), -1)
    expected = resize_and_crop(frame, CLIP)
    assert np.array_equal(resize_and_crop(padded[:, :340], CLIP), expected)
    assert np.array_equal(resize_and_crop(turned, CLIP), expected)


def test_a_read_only_frame_is_left_alone_without_a_warning():
    frame = np.frombuffer(picture(128, 128, 1.0).tobytes(), np.uint8).reshape(128, 128, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resize_and_crop(frame, FrameView(resize=64, crop=64))
