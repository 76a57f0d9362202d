import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.planted_controls import (
    bag_of_words,
    leak_scores,
    permute_summaries,
    reversed_texts,
    scene_only,
    shuffle_clips,
    wrong_texts,
)
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy
from hvlm.synthetic.planted_questions import easy_questions, order_questions

CONFIG = PlantedHierarchyConfig(num_train=600, num_dev=0, num_test_seen=400, num_test_held_out=0)


@pytest.fixture(scope="module")
def world():
    return planted_hierarchy(0, CONFIG)


def accuracy(token_score_VT, videos, questions):
    """Share of questions in which the right video scores strictly above all others."""
    tokens_Q2 = videos.summaries_V2[questions.query_Q] - CONFIG.num_atoms
    score_QK = sum(token_score_VT[questions.options_QK, tokens_Q2[:, slot, None]] for slot in (0, 1))
    right_Q1 = np.take_along_axis(score_QK, questions.answer_Q[:, None], axis=1)
    return float(((score_QK >= right_Q1).sum(axis=1) == 1).mean())


def test_a_wrong_text_is_a_summary_that_another_video_has(world):
    videos = world.test_seen
    wrong_V2 = wrong_texts(videos, seed=0)
    assert (wrong_V2 != videos.summaries_V2).any(axis=1).all()
    assert {tuple(row) for row in wrong_V2} <= {tuple(row) for row in videos.summaries_V2}
    np.testing.assert_array_equal(wrong_V2, wrong_texts(videos, seed=0))
    assert not np.array_equal(wrong_V2, wrong_texts(videos, seed=1))


def test_a_reversed_text_tells_the_phases_backwards(world):
    videos = world.test_seen
    told = reversed_texts(videos, CONFIG) - CONFIG.num_atoms - np.array([0, CONFIG.num_phases])
    np.testing.assert_array_equal(told, videos.phases_V2[:, ::-1])


def test_permuted_summaries_are_the_same_ones_at_other_videos(world):
    permuted = permute_summaries(world.train, seed=0)
    assert sorted(map(tuple, permuted.summaries_V2)) == sorted(map(tuple, world.train.summaries_V2))
    # 26 directions: one video in 26 keeps its summary by chance.
    assert (permuted.summaries_V2 == world.train.summaries_V2).all(axis=1).mean() < 0.1
    np.testing.assert_array_equal(permuted.features_VCD, world.train.features_VCD)


def test_shuffled_clips_keep_their_captions_and_lose_their_order(world):
    shuffled = shuffle_clips(world.train, seed=0)
    mixed = world.prototypes_AD[shuffled.atoms_VC] + shuffled.backgrounds_VCD
    rebuilt = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    np.testing.assert_allclose(shuffled.features_VCD, rebuilt, atol=1e-5)
    assert (shuffled.captions_VC >> 1 == shuffled.atoms_VC >> 1).all(), "a caption names its clip or its clip's twin"
    np.testing.assert_array_equal(np.sort(shuffled.atoms_VC, axis=1), np.sort(world.train.atoms_VC, axis=1))
    assert (shuffled.atoms_VC != world.train.atoms_VC).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(shuffled.summaries_V2, world.train.summaries_V2)


def test_the_scene_alone_says_nothing(world):
    scores_VT = leak_scores(scene_only(world.train), world.train, scene_only(world.test_seen), CONFIG)
    videos = world.test_seen
    # 400 and about 330 questions: two standard errors are .04 and .055.
    assert accuracy(scores_VT, videos, easy_questions(videos, 0)) == pytest.approx(0.2, abs=0.08)
    assert accuracy(scores_VT, videos, order_questions(videos, 0)) == pytest.approx(0.5, abs=0.1)


def test_a_bag_of_words_knows_the_phases_and_not_their_order(world):
    videos = world.test_seen
    np.testing.assert_allclose(bag_of_words(videos, CONFIG).sum(axis=1), 1.0)
    scores_VT = leak_scores(bag_of_words(world.train, CONFIG), world.train, bag_of_words(videos, CONFIG), CONFIG)
    assert accuracy(scores_VT, videos, easy_questions(videos, 0)) > 0.7
    assert accuracy(scores_VT, videos, order_questions(videos, 0)) == pytest.approx(0.5, abs=0.1)


def test_a_scene_that_depends_on_the_summary_would_be_found(world):
    """The leak check must be able to fail: here each background carries its first phase."""
    leak = np.eye(CONFIG.dim)
    spoilt = [scene_only(videos) + leak[videos.phases_V2[:, 0]] for videos in (world.train, world.test_seen)]
    scores_VT = leak_scores(spoilt[0], world.train, spoilt[1], CONFIG)
    assert accuracy(scores_VT, world.test_seen, order_questions(world.test_seen, 0)) > 0.9


def test_one_summary_alone_has_no_wrong_text():
    one = planted_hierarchy(0, PlantedHierarchyConfig(num_train=1)).train
    with pytest.raises(UserError, match="other than"):
        wrong_texts(one, 0)
