import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, contains, planted_hierarchy
from hvlm.synthetic.planted_questions import clip_questions, easy_questions, order_questions, shuffle_questions

SMALL = PlantedHierarchyConfig(num_train=4, num_dev=4, num_test_seen=120, num_test_held_out=60)


@pytest.fixture(scope="module")
def world():
    return planted_hierarchy(0, SMALL)


def right_options(questions):
    return np.take_along_axis(questions.options_QK, questions.answer_Q[:, None], axis=1)[:, 0]


def test_every_clip_is_asked_for_its_true_atom(world):
    questions = clip_questions(world.test_seen)
    assert questions.features_ND.shape == (960, 32)
    np.testing.assert_array_equal(questions.features_ND[8 * 7 + 3], world.test_seen.features_VCD[7, 3])
    assert questions.atoms_N[8 * 7 + 3] == world.test_seen.atoms_VC[7, 3]


def test_easy_wrong_options_are_four_videos_with_other_phase_sets(world):
    videos = world.test_seen
    questions = easy_questions(videos, seed=1)
    np.testing.assert_array_equal(questions.query_Q, np.arange(120))
    np.testing.assert_array_equal(right_options(questions), questions.query_Q)
    sets_V2 = np.sort(videos.phases_V2, axis=1)
    same_QK = (sets_V2[questions.options_QK] == sets_V2[questions.query_Q][:, None]).all(-1)
    np.testing.assert_array_equal(same_QK.sum(axis=1), 1)
    assert all(len(set(options)) == 5 for options in questions.options_QK.tolist())


def test_order_asks_against_a_real_video_of_the_reversed_phases(world):
    videos = world.test_seen
    questions = order_questions(videos, seed=1)
    np.testing.assert_array_equal(right_options(questions), questions.query_Q)
    wrong_Q = questions.options_QK.sum(axis=1) - questions.query_Q
    np.testing.assert_array_equal(videos.phases_V2[wrong_Q], videos.phases_V2[questions.query_Q][:, ::-1])
    reversible = contains(videos.phases_V2, videos.phases_V2[:, ::-1])
    np.testing.assert_array_equal(questions.query_Q, np.flatnonzero(reversible))
    assert not contains(world.held_out_R2, videos.phases_V2[questions.query_Q]).any()
    assert 0 < len(questions.query_Q) < 120, "videos whose reverse is held out have no question"


def test_held_out_pairs_are_asked_in_both_directions(world):
    videos = world.test_held_out
    asked_R2 = videos.phases_V2[order_questions(videos, seed=0).query_Q]
    assert contains(asked_R2, world.held_out_R2).all() and contains(asked_R2, world.held_out_R2[:, ::-1]).all()


def test_shuffle_options_are_permutations_and_only_the_answer_is_in_order():
    questions = shuffle_questions(50, 3, seed=2)
    assert questions.orders_QKC.shape == (50, 5, 3)
    np.testing.assert_array_equal(np.sort(questions.orders_QKC, axis=-1), np.broadcast_to(np.arange(3), (50, 5, 3)))
    in_order_QK = (questions.orders_QKC == np.arange(3)).all(-1)
    np.testing.assert_array_equal(in_order_QK, np.arange(5) == questions.answer_Q[:, None])
    assert len(np.unique(shuffle_questions(4, 8, seed=0).orders_QKC.reshape(-1, 8), axis=0)) == 17


def test_the_answer_stands_at_every_place_equally_often(world):
    large = planted_hierarchy(0, PlantedHierarchyConfig(num_train=0, num_test_seen=400)).test_seen
    for questions, num_options in (
        (easy_questions(large, 0), 5),
        (order_questions(large, 0), 2),
        (shuffle_questions(400, 8, 0), 5),
    ):
        share = np.bincount(questions.answer_Q, minlength=num_options) / len(questions.answer_Q)
        assert share == pytest.approx(1 / num_options, abs=0.08)


@pytest.mark.parametrize("ask", [easy_questions, order_questions, lambda videos, seed: shuffle_questions(60, 8, seed)])
def test_a_seed_gives_the_same_questions(world, ask):
    once, again, other = ask(world.test_held_out, 0), ask(world.test_held_out, 0), ask(world.test_held_out, 1)
    for one, two in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(one, two) for one, two in zip(once, other, strict=True))


def test_too_few_videos_or_clips_are_refused():
    tiny = planted_hierarchy(0, PlantedHierarchyConfig(num_train=0, num_test_seen=4)).test_seen
    with pytest.raises(UserError, match="at least 4"):
        easy_questions(tiny, 0)
    with pytest.raises(UserError, match="num_clips"):
        shuffle_questions(4, 2, 0)
