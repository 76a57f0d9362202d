import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.metrics.text_head import TextHead, TextHeadConfig, fit_text_head


def test_without_steps_towards_anything_the_score_is_the_cosine() -> None:
    scores = TextHead(np.zeros((2, 2))).scores(np.array([[3.0, 4.0]]), np.array([[2.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(scores, [[0.6, 0.8]])


def test_a_head_turns_clips_towards_their_texts() -> None:
    random = np.random.default_rng(0)
    label = np.arange(60) % 3
    clips = np.eye(3)[(label + 1) % 3] + 0.05 * random.normal(size=(60, 3))  # every clip lies at another class's text
    before = TextHead(np.zeros((3, 3))).scores(clips, np.eye(3))
    head = fit_text_head(clips, np.eye(3), label, TextHeadConfig(num_steps=300, lr=1e-2), seed=0)
    assert (before.argmax(1) == label).mean() == 0.0
    assert (head.scores(clips, np.eye(3)).argmax(1) == label).mean() == 1.0


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="needs clips"):
        fit_text_head(np.empty((0, 2)), np.eye(2), np.empty(0, np.int64), TextHeadConfig(), seed=0)
    with pytest.raises(UserError, match="num_steps"):
        TextHeadConfig(num_steps=0)
