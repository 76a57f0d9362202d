import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.metrics.anticipation_head import AnticipationHeadConfig, fit_anticipation_head, sample_sequences

CONFIG = AnticipationHeadConfig(num_steps=200, batch_size=16)


def test_a_head_learns_what_the_features_tell() -> None:
    random = np.random.default_rng(0)
    label_NZ = random.integers(0, 3, (60, 2))
    features = np.concatenate([np.eye(3)[label_NZ[:, 0]], np.eye(3)[label_NZ[:, 1]]], axis=1)
    head = fit_anticipation_head(features, label_NZ, 3, CONFIG, seed=0)
    probability = head.probabilities(features)
    assert probability.shape == (60, 2, 3)
    np.testing.assert_allclose(probability.sum(-1), 1)
    assert (probability.argmax(-1) == label_NZ).mean() > 0.95


def test_sequences_follow_the_categoricals() -> None:
    certain = np.array([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    assert (sample_sequences(certain, 3, seed=0) == [1, 2]).all()
    drawn = sample_sequences(np.tile([0.25, 0.75], (1000, 1, 1)), 4, seed=0)
    assert drawn.shape == (1000, 4, 1)
    assert abs(drawn.mean() - 0.75) < 0.03


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        fit_anticipation_head(np.empty((0, 2)), np.empty((0, 2), np.int64), 3, CONFIG, seed=0)
    with pytest.raises(UserError, match="num_steps"):
        AnticipationHeadConfig(num_steps=0)
