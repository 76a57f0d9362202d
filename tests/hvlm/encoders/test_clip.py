import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvlm.encoders.clip import describe_clip, load_clip
from hvlm.encoders.clip_import import open_clip
from hvlm.encoders.clip_model import build_model, read_spec
from hvlm.encoders.config import ClipConfig
from hvlm.errors import UserError
from hvlm.video.sampling import SamplingConfig

TINY = "jobs/configs/models/tiny_clip.json"


def tiny(**changes):
    return ClipConfig(**{"model": TINY, "pretrained": "random", **changes})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder():
    return load_clip(tiny(), "cpu")


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (7, 1, 64, 64, 3), dtype=np.uint8)


def test_features_equal_open_clips_own_transform_and_encode_image(encoder, frames):
    spec = read_spec(TINY, "random")
    network = build_model(spec, None, seed=0)
    transform = open_clip.image_transform(64, is_train=False, mean=spec.preprocessing.mean, std=spec.preprocessing.std)
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(frame[0])) for frame in frames])
        expected = network.encode_image(pixels, normalize=False).numpy()
    features = encoder.encode(frames)
    assert features.shape == (7, 128) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(features, axis=1).min() > 1.5  # not L2-normalised


def test_a_row_does_not_depend_on_its_batch(encoder, frames):
    alone = np.concatenate([encoder.encode(frames[i : i + 1]) for i in range(7)])
    in_threes = load_clip(tiny(batch_size=3), "cpu").encode(frames)
    np.testing.assert_allclose(alone, in_threes, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(frames), in_threes, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(frames[::-1])[::-1], in_threes, rtol=0, atol=1e-5)


def test_equal_batches_give_equal_bits(encoder, frames):
    np.testing.assert_array_equal(encoder.encode(frames), load_clip(tiny(), "cpu").encode(frames))


def test_random_features_tell_images_apart(encoder):
    colours = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [128, 128, 128]], dtype=np.uint8)
    flat = np.broadcast_to(colours[:, None, None, None, :], (4, 1, 64, 64, 3)).copy()
    unit = encoder.encode(flat)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[~np.eye(4, dtype=bool)].max() < 0.95


def test_no_frames_give_no_rows(encoder):
    assert encoder.encode(np.zeros((0, 1, 64, 64, 3), dtype=np.uint8)).shape == (0, 128)


def test_frames_of_another_size_are_refused(encoder):
    with pytest.raises(UserError, match="FrameView of this encoder"):
        encoder.encode(np.zeros((1, 1, 224, 224, 3), dtype=np.uint8))


def test_bf16_is_near_fp32(encoder, frames):
    reduced = load_clip(tiny(precision="bf16"), "cpu").encode(frames)
    full = encoder.encode(frames)
    assert 0 < np.abs(reduced - full).max() < 0.05 * np.abs(full).max()


def test_the_description_agrees_with_the_loaded_encoder(encoder):
    description = describe_clip(tiny())
    assert (description.dim, description.view) == (encoder.dim, encoder.view)
    assert description.view.crop == 64 and description.view.resize == 64 and description.view.clip_frames == 1
    assert description.label == "CLIP tiny_clip (random, seed 0)"
    assert json.loads(json.dumps(description.identity)) == description.identity


def test_squash_scales_both_sides():
    assert describe_clip(ClipConfig(model="ViT-B-16-SigLIP", pretrained="random")).view.resize == (224, 224)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"sampling": SamplingConfig(fps=2.0)},
        {"precision": "bf16"},
        {"model": "ViT-B-32"},
    ],
)
def test_the_identity_changes_with_what_changes_features(changes):
    assert describe_clip(tiny(**changes)).identity != describe_clip(tiny()).identity


def test_auto_and_fp32_are_one_encoder():
    assert describe_clip(tiny()).identity == describe_clip(tiny(precision="fp32")).identity


def test_the_identity_holds_contents_not_paths_or_speed(tmp_path):
    copied = tmp_path / "elsewhere.json"
    copied.write_bytes(Path(TINY).read_bytes())
    assert describe_clip(tiny(model=str(copied), batch_size=2)).identity == describe_clip(tiny()).identity
    torch.save(build_model(read_spec(TINY, "random"), None, seed=0).state_dict(), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    first, second = (describe_clip(tiny(pretrained=str(tmp_path / name))).identity for name in ("a.pt", "b.pt"))
    assert first == second and len(first["weights"]["sha256"]) == 64


def test_the_description_builds_no_model(monkeypatch):
    monkeypatch.setattr("hvlm.encoders.clip.build_model", None)
    monkeypatch.setattr(open_clip, "CLIP", None)
    assert describe_clip(ClipConfig(model="ViT-B-32", pretrained="random")).dim == 512
