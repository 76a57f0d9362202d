import json

import numpy as np
import pytest
import torch

from hvlm.encoders.c3d import C3D, MEAN_BGR, describe_c3d, load_c3d
from hvlm.encoders.config import C3DConfig
from hvlm.errors import UserError

PUBLISHED_KEYS = ["conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b", "fc6", "fc7", "fc8"]


def tiny(**changes):
    return C3DConfig(**{"weights": "random", "width": 0.0625, "fc_dim": 32, **changes})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips():
    """Six clips: a bright square on noise that moves in another direction and has another colour in each."""
    rng = np.random.default_rng(0)
    clips = rng.integers(90, 130, (6, 16, 112, 112, 3)).astype(np.uint8)
    for i, (dy, dx) in enumerate([(0, 3), (0, -3), (3, 0), (-3, 0), (2, 2), (0, 0)]):
        for t in range(16):
            y, x = 48 + dy * (t - 8), 48 + dx * (t - 8)
            clips[i, t, y : y + 16, x : x + 16, i % 3] = 230
    return clips


@pytest.fixture(scope="module")
def encoder():
    return load_c3d(tiny(), "cpu")


def test_the_published_network_has_the_published_parameters():
    with torch.device("meta"):
        network = C3D()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")] == PUBLISHED_KEYS[:-1]
    assert shapes["conv1.weight"] == (64, 3, 3, 3, 3) and shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    # 27 * (3*64 + 64*128 + 128*256 + 256^2 + 256*512 + 3 * 512^2) and the biases; 8192 * 4096 + 4096; 4096^2 + 4096
    convolutions = 27 * (192 + 8192 + 32768 + 65536 + 131072 + 3 * 262144) + (64 + 128 + 2 * 256 + 4 * 512)
    assert convolutions == 27_655_936
    assert (
        sum(parameter.numel() for parameter in network.parameters())
        == convolutions + 33_558_528 + 16_781_312
        == 77_995_776
    )
    # with the classifier fc8 (487 classes, 1,995,239 parameters) that is the 79,991,015 of the Sports-1M model


def test_the_published_network_gives_4096_features_of_16_frames_at_112_px():
    with torch.device("meta"):
        assert C3D(layer="fc6")(torch.zeros(2, 3, 16, 112, 112)).shape == (2, 4096)


def test_features_equal_the_published_layers_written_out(encoder, clips):
    """An independent, literal forward pass on pixels in BGR order less the mean."""
    network = C3D(width=0.0625, fc_dim=32, layer="fc7")
    network.init_random(0)
    f, pool = torch.nn.functional, torch.nn.functional.max_pool3d
    with torch.inference_mode():
        blue_first = np.ascontiguousarray(clips[..., [2, 1, 0]]).astype(np.float32) - np.array(
            MEAN_BGR, dtype=np.float32
        )
        h = torch.from_numpy(blue_first.transpose(0, 4, 1, 2, 3).copy())
        h = pool(f.relu(network.conv1(h)), (1, 2, 2))
        h = pool(f.relu(network.conv2(h)), 2)
        h = pool(f.relu(network.conv3b(f.relu(network.conv3a(h)))), 2)
        h = pool(f.relu(network.conv4b(f.relu(network.conv4a(h)))), 2)
        h = f.relu(network.conv5b(f.relu(network.conv5a(h))))
        assert h.shape[2:] == (2, 7, 7)
        h = pool(h, 2, padding=(0, 1, 1))
        assert h.shape[2:] == (1, 4, 4)
        fc6 = f.relu(network.fc6(h.flatten(1)))
        fc7 = f.relu(network.fc7(fc6))
    np.testing.assert_allclose(encoder.encode(clips), fc6.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(load_c3d(tiny(layer="fc7"), "cpu").encode(clips), fc7.numpy(), rtol=1e-4, atol=1e-5)


def test_random_features_are_alive_and_differ_between_clips(encoder, clips):
    features = encoder.encode(clips)  # without centred weights: 0.58 of the units alive, cosine 0.97
    assert (features >= 0).all() and 0.01 < np.sqrt((features**2).mean()) < 100  # well inside float16
    assert (features.max(axis=0) > 0).mean() > 0.6
    assert 0.2 < (features > 0).mean() < 0.8
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert (unit @ unit.T)[~np.eye(6, dtype=bool)].mean() < 0.93


def test_the_order_of_frames_and_channels_matters(encoder, clips):
    features = encoder.encode(clips)
    assert np.abs(encoder.encode(clips[:, ::-1].copy()) - features).max() > 1e-2
    assert np.abs(encoder.encode(clips[..., ::-1].copy()) - features).max() > 1e-2


def test_a_row_does_not_depend_on_its_batch(encoder, clips):
    alone = np.concatenate([encoder.encode(clips[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(load_c3d(tiny(batch_size=4), "cpu").encode(clips), alone, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(clips), load_c3d(tiny(), "cpu").encode(clips))


def test_a_clip_of_another_length_is_refused(encoder):
    with pytest.raises(UserError, match=r"\(N, 16, 112, 112, 3\)"):
        encoder.encode(np.zeros((1, 8, 112, 112, 3), dtype=np.uint8))


@pytest.fixture
def published_file(tmp_path):
    """A file with the keys of the published PyTorch port (classifier included), in its old format, at 1/16 width."""
    network = C3D(width=0.0625, fc_dim=32)
    network.init_random(7)
    state = {**network.state_dict(), "fc8.weight": torch.zeros(487, 32), "fc8.bias": torch.zeros(487)}
    assert sorted({key.split(".")[0] for key in state}) == sorted(PUBLISHED_KEYS)
    path = tmp_path / "c3d.pickle"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path, state


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_a_file_of_the_published_layout_maps_in(published_file, clips, layer):
    path, _ = published_file
    loaded = load_c3d(tiny(weights=str(path), layer=layer), "cpu")
    same_seed = load_c3d(tiny(seed=7, layer=layer), "cpu")
    np.testing.assert_array_equal(loaded.encode(clips[:2]), same_seed.encode(clips[:2]))


def test_wrong_keys_and_shapes_are_listed(published_file):
    path, state = published_file
    state = {key: value for key, value in state.items() if not key.startswith("conv3a")}
    torch.save({**state, "conv9.weight": torch.zeros(1), "fc6.bias": torch.zeros(5)}, path)
    with pytest.raises(UserError) as caught:
        load_c3d(tiny(weights=str(path)), "cpu")
    message = str(caught.value)
    assert "2 missing: conv3a.weight, conv3a.bias" in message
    assert "1 unknown: conv9.weight" in message and "1 of another shape: fc6.bias (5,) for (32,)" in message


def test_a_file_of_another_width_is_refused(published_file):
    with pytest.raises(UserError, match=r"conv1.weight \(4, 3, 3, 3, 3\) for \(64, 3, 3, 3, 3\)"):
        load_c3d(C3DConfig(weights=str(published_file[0])), "cpu")


def test_a_missing_file_is_refused():
    for call in (describe_c3d, lambda config: load_c3d(config, "cpu")):
        with pytest.raises(UserError, match=r"c3d\.pickle"):
            call(tiny(weights="absent.pickle"))


def test_the_description_agrees_with_the_loaded_encoder(encoder):
    description = describe_c3d(tiny())
    assert (description.dim, description.view) == (encoder.dim, encoder.view) == (32, encoder.view)
    view = description.view
    assert (view.clip_frames, view.clip_stride, view.resize, view.crop) == (16, 16, (128, 171), 112)
    assert (view.sampling.kind, view.sampling.fps) == ("fps", 25.0)
    assert json.loads(json.dumps(description.identity)) == description.identity


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"layer": "fc7"},
        {"fps": 10.0},
        {"stride_frames": 8},
        {"width": 0.125},
        {"fc_dim": 64},
        {"precision": "bf16"},
    ],
)
def test_the_identity_changes_with_what_changes_features(changes):
    assert describe_c3d(tiny(**changes)).identity != describe_c3d(tiny()).identity
    assert describe_c3d(tiny(batch_size=1)).identity == describe_c3d(tiny()).identity
    assert describe_c3d(tiny(precision="fp32")).identity == describe_c3d(tiny()).identity
