"""Embedders whose score is known: one that reads the truth off the features, one that knows no order, one at random."""

from dataclasses import replace

import numpy as np
import pytest

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy
from hvlm.synthetic.planted_metrics import METRICS, chance, leak_metrics, planted_metrics
from hvlm.synthetic.planted_questions import order_questions

# Without noise, scene, fillers and twins' likeness a clip shows its prototype.
CLEAR = PlantedHierarchyConfig(
    num_train=0, num_dev=0, num_test_seen=200, num_test_held_out=0, scene_weight=0.0, noise_norm=0.0, phase_share=1.0
)


@pytest.fixture(scope="module")
def world():
    return planted_hierarchy(0, CLEAR)


def unit(x):
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


class Knowing:
    """Words of a clip's atom, and tokens of the phases of the first and the last three clips (the cut is between)."""

    def __init__(self, world, ordered=True):
        self.world, self.ordered = world, ordered

    def clips(self, features_ND):
        atoms_N = (features_ND @ self.world.prototypes_AD.T).argmax(axis=1)
        return np.eye(52, dtype=np.float32)[atoms_N]

    def videos(self, features_VCD):
        V, C, D = features_VCD.shape
        phase_VCP = np.eye(6)[(self.clips(features_VCD.reshape(-1, D)).argmax(1) % 6).reshape(V, C)]
        if not self.ordered:
            phase_VCP = np.repeat(phase_VCP.mean(axis=1, keepdims=True), C, axis=1)
        return unit(np.concatenate([np.zeros((V, 40)), phase_VCP[:, :3].mean(1), phase_VCP[:, -3:].mean(1)], axis=1))

    def texts(self, vectors_NX):
        return unit(vectors_NX)


class Guessing(Knowing):
    """Vectors that depend on the input by chance alone."""

    def __init__(self, world):
        super().__init__(world)
        self.rng = np.random.default_rng(0)

    def clips(self, features_ND):
        return unit(self.rng.normal(size=(len(features_ND), 52)))

    def videos(self, features_VCD):
        return self.clips(features_VCD)


def shares(embedder, videos):
    return {name: each.accuracy for name, each in planted_metrics(embedder, videos, CLEAR, seed=0).items()}


def test_who_knows_all_answers_all(world):
    found = shares(Knowing(world), world.test_seen)
    assert found["clip40"] == found["easy"] == found["order"] == 1.0
    assert found["shuffle"] > 0.7 > 0.3 > found["shuffle_wrong"]  # some permutations move no clip over the cut
    assert found["shuffle_reversed"] == pytest.approx(0.0, abs=0.02)
    assert tuple(found) == METRICS


def test_who_knows_no_order_is_at_chance_where_order_is_asked(world):
    found = shares(Knowing(world, ordered=False), world.test_seen)
    assert found["easy"] == 1.0
    assert found["shuffle"] == found["shuffle_wrong"] == found["shuffle_reversed"] == pytest.approx(0.2, abs=1e-9)


def test_who_guesses_is_at_chance(world):
    found = shares(Guessing(world), world.test_seen)
    for name, guessed in chance(CLEAR).items():
        assert found[name] == pytest.approx(guessed, abs=0.1), name


def test_a_tie_is_no_hit_for_easy_and_order(world):
    class Constant(Knowing):
        def videos(self, features_VCD):
            return unit(np.ones((len(features_VCD), 52)))

    found = shares(Constant(world), world.test_seen)
    assert found["easy"] == found["order"] == 0.0 and found["shuffle"] == pytest.approx(0.2)


def test_chance_is_that_of_the_worlds_number_of_words():
    assert chance(CLEAR)["clip40"] == 1 / 40
    assert chance(replace(CLEAR, num_phases=4, num_fillers=2))["clip40"] == 1 / 22
    assert [chance(CLEAR)[name] for name in METRICS[1:]] == [0.2, 0.5, 0.2, 0.2, 0.2]


def test_questions_are_counted(world):
    found = planted_metrics(Guessing(world), world.test_seen, CLEAR, seed=0)
    counts = {name: len(each.credit_Q) for name, each in found.items()}
    asked = len(order_questions(world.test_seen, 0).query_Q)
    assert counts == {"clip40": 1600, "order": asked} | dict.fromkeys(("easy", *METRICS[3:]), 200) and 100 < asked < 200


def test_leak_checks_know_the_phases_from_the_words_alone():
    """400 and about 330 questions: two standard errors are .04 and .055."""
    world = planted_hierarchy(0, PlantedHierarchyConfig(num_train=600, num_dev=0, num_test_held_out=0))
    found = {name: each.accuracy for name, each in leak_metrics(world, world.test_seen, 0).items()}
    assert found["scene/easy"] == pytest.approx(0.2, abs=0.08) and found["words/easy"] > 0.7
    assert found["scene/order"] == pytest.approx(0.5, abs=0.1) == found["words/order"]
    train, test = (
        replace(videos, backgrounds_VCD=np.eye(CLEAR.dim)[videos.phases_V2[:, :1].repeat(8, axis=1)])
        for videos in (world.train, world.test_seen)
    )
    assert leak_metrics(replace(world, train=train), test, 0)["scene/order"].accuracy > 0.9, (
        "each tells its first phase"
    )
