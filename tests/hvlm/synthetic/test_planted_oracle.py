import numpy as np
import pytest

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, directions, planted_hierarchy
from hvlm.synthetic.planted_oracle import clip_log_likelihood, direction_log_posterior
from hvlm.synthetic.planted_questions import easy_questions, order_questions

CONFIG = PlantedHierarchyConfig(num_train=0, num_dev=0)


def accuracy(posterior_VR, videos, questions):
    """Share of questions in which the right video scores strictly above all others."""
    row = {tuple(pair): index for index, pair in enumerate(directions(CONFIG.num_phases).tolist())}
    asked_Q = np.array([row[tuple(videos.phases_V2[query])] for query in questions.query_Q])
    score_QK = posterior_VR[questions.options_QK, asked_Q[:, None]]
    right_Q1 = np.take_along_axis(score_QK, questions.answer_Q[:, None], axis=1)
    return float(((score_QK >= right_Q1).sum(axis=1) == 1).mean())


def true_atoms(videos):
    return np.where(videos.atoms_VC[..., None] == np.arange(CONFIG.num_atoms), 0.0, -np.inf)


@pytest.mark.parametrize("split", ["test_seen", "test_held_out"])
def test_the_oracle_answers_nearly_everything(split):
    world = planted_hierarchy(0, CONFIG)
    videos = getattr(world, split)
    posterior_VR = direction_log_posterior(
        clip_log_likelihood(videos.features_VCD, world.prototypes_AD, CONFIG), CONFIG
    )
    assert accuracy(posterior_VR, videos, order_questions(videos, 0)) > 0.95
    assert accuracy(posterior_VR, videos, easy_questions(videos, 0)) > 0.95
    clean_VR = direction_log_posterior(true_atoms(videos), CONFIG)
    assert accuracy(clean_VR, videos, order_questions(videos, 0)) > 0.99
    assert accuracy(clean_VR, videos, easy_questions(videos, 0)) > 0.99


BY_HAND = PlantedHierarchyConfig(
    num_phases=4, atoms_per_phase=1, num_fillers=2, num_held_out=0, num_clips=3, min_first_clips=1,
    max_first_clips=2, phase_share=0.5,
)  # fmt: skip


def test_the_posterior_of_clear_clips_by_hand():
    # Clips show atoms 0, 4 (a filler), 1. An atom of the phase has probability 1/2, each filler 1/4, others 0.
    one_hot_VCA = np.where(np.eye(6)[[[0, 4, 1], [4, 4, 5]]] > 0, 0.0, -np.inf)
    posterior_VR = np.exp(direction_log_posterior(one_hot_VCA, BY_HAND))
    expected = [1.0 if pair == [0, 1] else 0.0 for pair in directions(4).tolist()]
    np.testing.assert_allclose(posterior_VR[0], expected, atol=1e-12)
    np.testing.assert_allclose(posterior_VR[1], 1 / 12, atol=1e-12)


def test_the_posterior_of_doubtful_clips_by_hand():
    # A clip is its atom or, half as likely, filler 4: .5 * 1 + .5 * (.5 / 2) = 5/8 under its phase, else 1/8.
    # In eighths, summed over the cuts 1 and 2, the clips 0, 0, 1 give 0 then 1: 5*1*5 + 5*5*5 = 150, and so on.
    likely_CA = np.zeros((3, 6))
    likely_CA[[0, 1, 2], [0, 0, 1]], likely_CA[:, 4] = 1.0, 0.5
    with np.errstate(divide="ignore"):
        posterior_R = np.exp(direction_log_posterior(np.log(likely_CA)[None], BY_HAND))[0]
    eighths = {(0, 1): 150, (0, 2): 30, (0, 3): 30, (1, 0): 6, (2, 0): 6, (3, 0): 6, (2, 1): 10, (3, 1): 10}
    expected = np.array([eighths.get(tuple(pair), 2) for pair in directions(4).tolist()])
    np.testing.assert_allclose(posterior_R, expected / expected.sum(), atol=1e-12)


def test_clips_in_reversed_order_speak_for_the_reversed_direction():
    world = planted_hierarchy(2, CONFIG)
    likelihood_VCA = clip_log_likelihood(world.test_seen.features_VCD, world.prototypes_AD, CONFIG)
    forward_VR = direction_log_posterior(likelihood_VCA, CONFIG)
    backward_VR = direction_log_posterior(likelihood_VCA[:, ::-1], CONFIG)
    pairs_R2 = directions(CONFIG.num_phases)
    # The cuts 3, 4, 5 of 8 clips are their own mirror image, so this is exact.
    reversed_R = [np.flatnonzero((pairs_R2 == pair[::-1]).all(axis=1))[0] for pair in pairs_R2]
    np.testing.assert_allclose(forward_VR, backward_VR[:, reversed_R], atol=1e-9)
