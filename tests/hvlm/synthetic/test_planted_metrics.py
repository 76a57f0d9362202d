"""Embedders whose score is known: one that reads the truth off the features, one that knows no order, one at random."""

import numpy as np
import pytest

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy
from hvlm.synthetic.planted_metrics import CHANCE, planted_metrics

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


def test_who_knows_all_answers_all(world):
    found = planted_metrics(Knowing(world), world.test_seen, CLEAR, seed=0)
    assert found["clip40"] == found["easy"] == found["order"] == 1.0
    assert found["shuffle"] > 0.7 > 0.3 > found["shuffle_wrong"]  # some permutations move no clip over the cut
    assert found["shuffle_reversed"] == pytest.approx(0.0, abs=0.02)
    assert set(found) == set(CHANCE)


def test_who_knows_no_order_is_at_chance_where_order_is_asked(world):
    found = planted_metrics(Knowing(world, ordered=False), world.test_seen, CLEAR, seed=0)
    assert found["easy"] == 1.0
    assert found["shuffle"] == found["shuffle_wrong"] == found["shuffle_reversed"] == pytest.approx(0.2, abs=1e-9)


def test_who_guesses_is_at_chance(world):
    found = planted_metrics(Guessing(world), world.test_seen, CLEAR, seed=0)
    for name, chance in CHANCE.items():
        assert found[name] == pytest.approx(chance, abs=0.1), name


def test_a_tie_is_no_hit_for_easy_and_order(world):
    class Constant(Knowing):
        def videos(self, features_VCD):
            return unit(np.ones((len(features_VCD), 52)))

    found = planted_metrics(Constant(world), world.test_seen, CLEAR, seed=0)
    assert found["easy"] == found["order"] == 0.0 and found["shuffle"] == pytest.approx(0.2)
