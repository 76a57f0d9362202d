"""The toy features hold what is planted, and their raw statistics are those of the specification's section 2."""

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.features import ToyConfig, ToyFeatures, toy_features


def _consecutive_cosines(toy: ToyFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of consecutive real frames, and whether each pair crosses a boundary."""
    pairs = toy.mask[:, 1:] & toy.mask[:, :-1]
    cosines = (toy.features[:, 1:] * toy.features[:, :-1]).sum(-1)
    return cosines[pairs], toy.boundaries[:, 1:][pairs]


def test_equal_arguments_give_equal_bits_and_another_seed_does_not() -> None:
    first, second, other = toy_features(3, 4), toy_features(3, 4), toy_features(4, 4)
    assert first.features.tobytes() == second.features.tobytes()
    assert first.features.shape != other.features.shape or not np.array_equal(first.features, other.features)


def test_shapes_lengths_and_padding() -> None:
    toy = toy_features(0, 40)
    lengths = toy.mask.sum(1)
    assert toy.features.dtype == np.float32
    assert toy.features.shape == (40, lengths.max(), 32)
    assert lengths.min() >= 30
    assert lengths.max() <= 48
    assert len(set(lengths.tolist())) > 5
    assert np.array_equal(toy.mask, np.arange(toy.mask.shape[1]) < lengths[:, None])
    assert not toy.features[~toy.mask].any()
    assert (toy.labels[~toy.mask] == -1).all()
    np.testing.assert_allclose(np.linalg.norm(toy.features[toy.mask], axis=-1), 1.0, rtol=1e-5)


def test_boundaries_stand_exactly_where_the_label_changes() -> None:
    toy = toy_features(0, 10)
    assert not toy.boundaries[:, 0].any()
    for video in range(10):
        length = int(toy.mask[video].sum())
        changes = [t for t in range(1, length) if toy.labels[video, t] != toy.labels[video, t - 1]]
        assert np.flatnonzero(toy.boundaries[video]).tolist() == changes
        assert (np.diff([0, *changes]) >= 5).all()


def test_without_background_and_noise_a_frame_is_its_class_vector() -> None:
    toy = toy_features(0, 3, ToyConfig(background_weight=0.0, noise_weight=0.0))
    np.testing.assert_allclose(toy.features[toy.mask], toy.class_vectors[toy.labels[toy.mask]], atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_raw_statistics_match_the_specification(seed: int) -> None:
    toy = toy_features(seed, 64)
    cosines, crosses = _consecutive_cosines(toy)
    frames = toy.features[toy.mask]
    spectrum = np.linalg.svd(frames - frames.mean(0), compute_uv=False) ** 2
    shares = spectrum / spectrum.sum()
    assert cosines.mean() == pytest.approx(0.579, abs=0.03)
    assert cosines[~crosses].mean() - cosines[crosses].mean() == pytest.approx(0.259, abs=0.03)
    assert np.sqrt(32) * frames.std(0).mean() == pytest.approx(0.981, abs=0.02)
    assert np.exp(-(shares * np.log(shares)).sum()) == pytest.approx(28.4, abs=1.0)


@pytest.mark.parametrize(
    "values",
    [
        {"num_classes": 1},
        {"dim": 1},
        {"min_frames": 50},
        {"min_frames": 0},
        {"min_segment_frames": 0},
        {"max_segment_frames": 4},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(UserError, match="expected"):
        ToyConfig(**values)


def test_no_videos_are_refused() -> None:
    with pytest.raises(UserError, match="num_videos"):
        toy_features(0, 0)
