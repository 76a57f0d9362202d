from dataclasses import replace

import numpy as np
import pytest
import torch

from hvlm.encoders.config import C3DConfig, ClipConfig
from hvlm.encoders.registry import describe_encoder, load_encoder

CONFIGS = [
    ClipConfig(model="jobs/configs/models/tiny_clip.json", pretrained="random"),
    C3DConfig(weights="random", width=0.0625, fc_dim=32),
]


def random_clips(view, num_rows):
    shape = (num_rows, view.clip_frames, view.crop, view.crop, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_every_encoder_keeps_the_contract(config):
    description, encoder = describe_encoder(config), load_encoder(config, "cpu")
    assert (encoder.dim, encoder.view) == (description.dim, description.view)
    assert description.identity["kind"] == config.kind
    features = encoder.encode(random_clips(encoder.view, 3))
    assert features.shape == (3, description.dim) and features.dtype == np.float32 and np.isfinite(features).all()
    assert encoder.encode(random_clips(encoder.view, 0)).shape == (0, description.dim)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_a_gpu_gives_the_features_of_the_cpu(config):
    clips = random_clips(describe_encoder(config).view, 5)
    expected = load_encoder(config, "cpu").encode(clips)
    scale = np.abs(expected).max()
    reduced = load_encoder(replace(config, precision="bf16"), "cuda").encode(clips)
    assert 0 < np.abs(reduced - expected).max() < 0.05 * scale
    assert np.abs(load_encoder(config, "cuda").encode(clips) - expected).max() < 1e-4 * scale
