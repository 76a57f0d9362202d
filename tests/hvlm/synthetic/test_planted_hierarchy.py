import dataclasses

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.planted_hierarchy import (
    PlantedHierarchyConfig,
    contains,
    directions,
    phase_of_atoms,
    planted_hierarchy,
)

CONFIG = PlantedHierarchyConfig()
SPLITS = ("train", "dev", "test_seen", "test_held_out")


@pytest.fixture(scope="module")
def world():
    return planted_hierarchy(0)


def test_the_default_world_has_the_sizes_of_the_specification(world):
    assert [len(getattr(world, split)) for split in SPLITS] == [2000, 200, 400, 300]
    assert world.prototypes_AD.shape == (40, 32)
    assert world.train.features_VCD.shape == (2000, 8, 32)
    assert (CONFIG.num_atoms, CONFIG.num_tokens, len(directions(6)), len(world.held_out_R2)) == (40, 52, 30, 4)


def test_twins_look_alike_and_stand_in_different_phases(world):
    phases_A = phase_of_atoms(CONFIG)
    assert phases_A[:8].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert phases_A[29:].tolist() == [5] + [-1] * 10
    assert (phases_A[:30:2] != phases_A[1:30:2]).all()
    cosine_AA = world.prototypes_AD @ world.prototypes_AD.T
    np.testing.assert_allclose(np.diag(cosine_AA), 1.0, atol=1e-6)
    twins = cosine_AA[np.arange(0, 40, 2), np.arange(1, 40, 2)]
    others = cosine_AA[np.arange(0, 38, 2), np.arange(2, 40, 2)]
    # The twin's own direction has weight .35 and a random angle: cos = (1 + .35 c) / |...|, .94 at c = 0.
    assert twins.min() > 0.9 > others.max()


def test_held_out_directions_are_in_no_video_that_training_or_choosing_sees(world):
    for split in ("train", "dev", "test_seen"):
        assert not contains(world.held_out_R2, getattr(world, split).phases_V2).any(), split
    assert contains(world.train.phases_V2, world.held_out_R2[:, ::-1]).all(), "the reverse of each is seen"
    held = world.test_held_out.phases_V2
    assert contains(held, world.held_out_R2).all() and contains(held, world.held_out_R2[:, ::-1]).all()
    assert len(np.unique(np.sort(held, axis=1), axis=0)) == 4
    assert len(np.unique(world.train.phases_V2, axis=0)) == 26
    assert (world.held_out_R2[:, 0] // 2 != world.held_out_R2[:, 1] // 2).all(), "none between twin phases"


def test_splits_share_no_video_and_no_scene(world):
    ids = [name for split in SPLITS for name in getattr(world, split).ids]
    assert len(set(ids)) == len(ids) == 2900
    scenes = np.concatenate([getattr(world, split).backgrounds_VCD.mean(axis=1) for split in SPLITS])
    assert len(np.unique(scenes.round(4), axis=0)) == 2900


def test_clips_show_the_current_phase_or_a_filler(world):
    videos = world.train
    shown_VC = phase_of_atoms(CONFIG)[videos.atoms_VC]
    second_VC = np.arange(8) >= videos.first_clips_V[:, None]
    expected_VC = np.where(second_VC, videos.phases_V2[:, 1:], videos.phases_V2[:, :1])
    assert ((shown_VC == expected_VC) | (shown_VC == -1)).all()
    assert (videos.phases_V2[:, 0] != videos.phases_V2[:, 1]).all()
    assert (shown_VC >= 0).mean() == pytest.approx(0.75, abs=0.015)
    assert np.bincount(videos.first_clips_V, minlength=9).tolist()[:3] == [0, 0, 0]
    assert np.bincount(videos.first_clips_V)[3:6].min() > 550 and videos.first_clips_V.max() == 5


def test_three_captions_in_ten_name_the_twin(world):
    videos = world.train
    wrong_VC = videos.captions_VC != videos.atoms_VC
    assert (videos.captions_VC[wrong_VC] == (videos.atoms_VC[wrong_VC] ^ 1)).all()
    # 16,000 clips: the standard error is .0036.
    assert wrong_VC.mean() == pytest.approx(0.3, abs=0.015)
    per_atom = np.array([wrong_VC[videos.atoms_VC == atom].mean() for atom in range(40)])
    assert per_atom.min() > 0.2 and per_atom.max() < 0.4
    clean = planted_hierarchy(0, PlantedHierarchyConfig(num_train=50, label_noise=0.0)).train
    assert (clean.captions_VC == clean.atoms_VC).all()


def test_the_summary_has_a_token_for_each_slot_and_phase_apart_from_the_captions(world):
    videos = world.train
    np.testing.assert_array_equal(videos.summaries_V2[:, 0], 40 + videos.phases_V2[:, 0])
    np.testing.assert_array_equal(videos.summaries_V2[:, 1], 46 + videos.phases_V2[:, 1])
    assert videos.captions_VC.max() < 40 <= videos.summaries_V2.min() and videos.summaries_V2.max() < 52


def test_features_are_prototype_scene_and_noise_at_length_one(world):
    videos = world.train
    np.testing.assert_allclose(np.linalg.norm(videos.features_VCD, axis=-1), 1.0, atol=1e-5)
    mixed = world.prototypes_AD[videos.atoms_VC] + videos.backgrounds_VCD
    rebuilt = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    np.testing.assert_allclose(videos.features_VCD, rebuilt, atol=1e-5)
    # The scene is what two clips of a video share: its squared length .25. The rest of 1.25 is noise.
    shared = (videos.backgrounds_VCD[:, 0] * videos.backgrounds_VCD[:, 1]).sum(-1).mean()
    assert shared == pytest.approx(0.25, abs=0.02)
    assert (videos.backgrounds_VCD**2).sum(-1).mean() == pytest.approx(1.25, abs=0.02)
    across = (videos.backgrounds_VCD[:-1] * videos.backgrounds_VCD[1:]).sum(-1).mean()
    assert across == pytest.approx(0.0, abs=0.02)


def test_a_seed_gives_the_same_world_and_another_seed_another():
    small = PlantedHierarchyConfig(num_train=20, num_dev=5, num_test_seen=8, num_test_held_out=8)
    once, again, other = (planted_hierarchy(seed, small) for seed in (3, 3, 4))
    for split in SPLITS:
        for one, two in zip(
            dataclasses.astuple(getattr(once, split)), dataclasses.astuple(getattr(again, split)), strict=True
        ):
            np.testing.assert_array_equal(one, two)
    assert not np.array_equal(once.prototypes_AD, other.prototypes_AD)
    assert not set(once.train.ids) & set(other.train.ids)


def test_the_size_of_one_split_does_not_change_another():
    small = planted_hierarchy(5, PlantedHierarchyConfig(num_train=10, num_test_seen=30))
    large = planted_hierarchy(5, PlantedHierarchyConfig(num_train=500, num_test_seen=30))
    np.testing.assert_array_equal(small.test_seen.features_VCD, large.test_seen.features_VCD)
    np.testing.assert_array_equal(small.held_out_R2, large.held_out_R2)


def test_a_smaller_world_keeps_the_rules():
    config = PlantedHierarchyConfig(
        num_train=30, num_phases=4, atoms_per_phase=3, num_fillers=2, num_held_out=2, dim=16, num_clips=5,
        min_first_clips=2, max_first_clips=3,
    )  # fmt: skip
    world = planted_hierarchy(1, config)
    assert world.train.features_VCD.shape == (30, 5, 16)
    assert (config.num_atoms, config.num_tokens) == (14, 22)
    assert world.train.summaries_V2.max() < 22
    phases_A = phase_of_atoms(config)
    assert (phases_A[:12:2] != phases_A[1:12:2]).all()
    assert len(planted_hierarchy(1, PlantedHierarchyConfig(num_train=3, num_held_out=0)).test_held_out) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_phases": 5},
        {"num_fillers": 3},
        {"num_held_out": 13},
        {"min_first_clips": 6},
        {"max_first_clips": 8},
        {"label_noise": 1.2},
        {"noise_norm": -1.0},
        {"atoms_per_phase": 0},
        {"num_train": -1},
    ],
)
def test_a_world_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        PlantedHierarchyConfig(**wrong)
