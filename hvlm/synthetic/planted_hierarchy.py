"""A planted two-level world: clips have names, videos have an order of phases that only the summary tells.

A video is two phases, first a then b, cut somewhere in the middle. Each clip shows an atom of the current phase or a
filler. A caption names the atom of one clip, wrongly in 30 % of the clips: by the name of its visual twin, which
belongs to another phase. The summary says "first a, then b" in words of its own. So a clip is named by its caption, the
pair of phases by a bag of clips, and the order by nothing but clips in their order.

Tokens: 0..A-1 are the captions' words (word = atom), then one token for each slot (first, then) and phase.
Shapes: V videos, C clips of a video, D width, A atoms, P phases, R directions (ordered pairs of phases).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.config import Config, require

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedHierarchyConfig(Config):
    """The world of the specification; the counts of videos, atoms and clips may be made smaller for tests.

    Args:
        num_train: videos of the seen directions to train on.
        num_dev: videos of the seen directions to choose models on.
        num_test_seen: videos of the seen directions to report on.
        num_test_held_out: videos of the held-out pairs, both directions, to report on.
        num_phases: P, even, so that twins always stand in different phases.
        atoms_per_phase: atoms that belong to one phase.
        num_fillers: atoms of no phase, even.
        num_held_out: directions that no training video has; the reverse of each is seen.
        dim: D, width of a clip feature.
        num_clips: C.
        min_first_clips: fewest clips of the first phase; the upper bound is included.
        max_first_clips: most clips of the first phase.
        phase_share: share of the clips that show an atom of the phase and no filler.
        label_noise: share of the captions that name the twin.
        twin_distance: weight of its own direction in the prototype of a twin's second atom.
        scene_weight: length of the scene vector that all clips of a video share.
        noise_norm: root mean square length of a clip's own noise.
    """

    num_train: int = 2000
    num_dev: int = 200
    num_test_seen: int = 400
    num_test_held_out: int = 300
    num_phases: int = 6
    atoms_per_phase: int = 5
    num_fillers: int = 10
    num_held_out: int = 4
    dim: int = 32
    num_clips: int = 8
    min_first_clips: int = 3
    max_first_clips: int = 5
    phase_share: float = 0.75
    label_noise: float = 0.3
    twin_distance: float = 0.35
    scene_weight: float = 0.5
    noise_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_train", "num_dev", "num_test_seen", "num_test_held_out", "num_held_out"):
            _at_least(name, getattr(self, name), 0)
        for name in ("atoms_per_phase", "min_first_clips"):
            _at_least(name, getattr(self, name), 1)
        for name in ("num_phases", "num_fillers", "dim"):
            _at_least(name, getattr(self, name), 2)
        for name in ("num_phases", "num_fillers"):
            value = getattr(self, name)
            require(
                value % 2 == 0,
                what=f"planted_hierarchy.{name}",
                got=value,
                expected="an even number, for atoms come in pairs of twins",
                do="add one",
            )
        require(
            self.min_first_clips <= self.max_first_clips < self.num_clips,
            what="planted_hierarchy.min_first_clips, max_first_clips, num_clips",
            got=(self.min_first_clips, self.max_first_clips, self.num_clips),
            expected="min_first_clips <= max_first_clips < num_clips",
            do="set e.g. 3, 5 and 8",
        )
        pairs = self.num_phases * (self.num_phases - 2) // 2
        require(
            self.num_held_out <= pairs,
            what="planted_hierarchy.num_held_out",
            got=self.num_held_out,
            expected=f"at most {pairs}, the pairs of phases without twins",
            do="hold fewer directions out",
        )
        for name in ("phase_share", "label_noise"):
            value = getattr(self, name)
            require(0 <= value <= 1, what=f"planted_hierarchy.{name}", got=value, expected="0 to 1", do="set e.g. 0.5")
        for name in ("twin_distance", "scene_weight", "noise_norm"):
            _at_least(name, getattr(self, name), 0)

    @property
    def num_atoms(self) -> int:
        """A: the atoms of all phases, then the fillers."""
        return self.num_phases * self.atoms_per_phase + self.num_fillers

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary: a word for each atom, a token for each slot and phase."""
        return self.num_atoms + 2 * self.num_phases


@dataclass(frozen=True, slots=True)
class PlantedVideos:
    """The videos of one split.

    Attributes:
        ids: V names, unlike those of any other split.
        features_VCD: float32, unit vectors: what a frozen encoder would give.
        backgrounds_VCD: float32, what was added to the atom's prototype before normalising: scene and noise.
        atoms_VC: int64 in [0, A), what the clip truly shows.
        captions_VC: int64 in [0, A), the word that the narrator says.
        phases_V2: int64 in [0, P), first and second phase.
        first_clips_V: int64, number of clips of the first phase.
        summaries_V2: int64 in [A, num_tokens), the summary's two tokens.
    """

    ids: tuple[str, ...]
    features_VCD: Floats
    backgrounds_VCD: Floats
    atoms_VC: Ints
    captions_VC: Ints
    phases_V2: Ints
    first_clips_V: Ints
    summaries_V2: Ints

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class PlantedHierarchy:
    """A whole world.

    Attributes:
        config: what it was made from.
        prototypes_AD: float32, unit vectors; atoms 2j and 2j + 1 are twins.
        held_out_R2: int64, the directions that training never shows.
        train: seen directions.
        dev: seen directions, for choosing models.
        test_seen: seen directions, for the report.
        test_held_out: the held-out pairs in both directions, for the report.
    """

    config: PlantedHierarchyConfig
    prototypes_AD: Floats
    held_out_R2: Ints
    train: PlantedVideos
    dev: PlantedVideos
    test_seen: PlantedVideos
    test_held_out: PlantedVideos


def planted_hierarchy(seed: int, config: PlantedHierarchyConfig | None = None) -> PlantedHierarchy:
    """Return the planted world of a seed; equal arguments give bit-equal arrays.

    Prototypes, held-out directions and each split are drawn from streams of their own, so the size of one split does
    not change another.

    Args:
        seed: at least 0.
        config: None means `PlantedHierarchyConfig()`.

    Source: specification of HierVL, section 7.1.
    """
    world = config or PlantedHierarchyConfig()
    streams = np.random.SeedSequence(seed).spawn(6)
    rngs = [np.random.default_rng(stream) for stream in streams]
    prototypes_AD = _prototypes(rngs[0], world)
    held_out_R2 = _held_out(rngs[1], world)
    all_R2 = directions(world.num_phases)
    seen_R2 = all_R2[~contains(held_out_R2, all_R2)]
    both_R2 = np.concatenate([held_out_R2, held_out_R2[:, ::-1]])
    splits = {
        name: _videos(rng, world, prototypes_AD, pairs_R2[rng.integers(len(pairs_R2), size=count)], f"{name}-{seed}")
        for rng, name, count, pairs_R2 in (
            (rngs[2], "train", world.num_train, seen_R2),
            (rngs[3], "dev", world.num_dev, seen_R2),
            (rngs[4], "test_seen", world.num_test_seen, seen_R2),
            (rngs[5], "test_held_out", world.num_test_held_out if len(both_R2) else 0, both_R2),
        )
    }
    return PlantedHierarchy(world, prototypes_AD.astype(np.float32), held_out_R2, **splits)


def directions(num_phases: int) -> Ints:
    """Return (R, 2) all ordered pairs of two phases, sorted."""
    first, second = np.nonzero(~np.eye(num_phases, dtype=bool))
    return np.stack([first, second], axis=1).astype(np.int64)


def contains(pairs_R2: Ints, pairs_V2: Ints) -> NDArray[np.bool_]:
    """Return (V,) whether each pair is among `pairs_R2`, in the same order of its two numbers."""
    found: NDArray[np.bool_] = (pairs_V2[:, None] == pairs_R2[None]).all(-1).any(-1)
    return found


def phase_of_atoms(config: PlantedHierarchyConfig) -> Ints:
    """Return (A,) the phase of each atom, -1 for a filler."""
    atoms_A = np.arange(config.num_atoms)
    phases_A = np.where(atoms_A < config.num_phases * config.atoms_per_phase, atoms_A % config.num_phases, -1)
    return phases_A.astype(np.int64)


def summary_tokens(phases_V2: Ints, config: PlantedHierarchyConfig) -> Ints:
    """Return (V, 2) the tokens of "first a, then b" for pairs (a, b)."""
    return phases_V2 + config.num_atoms + np.array([0, config.num_phases])


def _prototypes(rng: np.random.Generator, world: PlantedHierarchyConfig) -> NDArray[np.float64]:
    prototypes_AD = unit_rows(rng.standard_normal((world.num_atoms, world.dim)))
    prototypes_AD[1::2] = unit_rows(prototypes_AD[::2] + world.twin_distance * prototypes_AD[1::2])
    return prototypes_AD


def _held_out(rng: np.random.Generator, world: PlantedHierarchyConfig) -> Ints:
    """Directions of different pairs, none between the phases 2k and 2k + 1, which hold each other's twins.

    The oracle is weaker between twin phases; leaving them out keeps the held-out set about combination alone.
    """
    all_R2 = directions(world.num_phases)
    pairs_R2 = all_R2[(all_R2[:, 0] < all_R2[:, 1]) & (all_R2[:, 0] // 2 != all_R2[:, 1] // 2)]
    chosen_R2 = pairs_R2[np.sort(rng.permutation(len(pairs_R2))[: world.num_held_out])]
    return np.where(rng.random((len(chosen_R2), 1)) < 0.5, chosen_R2, chosen_R2[:, ::-1])


def _videos(
    rng: np.random.Generator,
    world: PlantedHierarchyConfig,
    prototypes_AD: NDArray[np.float64],
    phases_V2: Ints,
    name: str,
) -> PlantedVideos:
    num_videos, shape_VC = len(phases_V2), (len(phases_V2), world.num_clips)
    first_clips_V = rng.integers(world.min_first_clips, world.max_first_clips + 1, num_videos)
    in_second_VC = np.arange(world.num_clips) >= first_clips_V[:, None]
    phase_VC = np.where(in_second_VC, phases_V2[:, 1:], phases_V2[:, :1])
    phase_atom_VC = phase_VC + world.num_phases * rng.integers(world.atoms_per_phase, size=shape_VC)
    filler_VC = world.num_atoms - world.num_fillers + rng.integers(world.num_fillers, size=shape_VC)
    atoms_VC = np.where(rng.random(shape_VC) < world.phase_share, phase_atom_VC, filler_VC)
    # 2j ^ 1 = 2j + 1 and back: the twin.
    captions_VC = np.where(rng.random(shape_VC) < world.label_noise, atoms_VC ^ 1, atoms_VC)
    scenes_VD = unit_rows(rng.standard_normal((num_videos, world.dim)))
    noise_VCD = rng.standard_normal((*shape_VC, world.dim)) * (world.noise_norm / world.dim**0.5)
    backgrounds_VCD = world.scene_weight * scenes_VD[:, None] + noise_VCD
    return PlantedVideos(
        ids=tuple(f"planted-{name}-{index:05d}" for index in range(num_videos)),
        features_VCD=unit_rows(prototypes_AD[atoms_VC] + backgrounds_VCD).astype(np.float32),
        backgrounds_VCD=backgrounds_VCD.astype(np.float32),
        atoms_VC=atoms_VC,
        captions_VC=captions_VC,
        phases_V2=phases_V2,
        first_clips_V=first_clips_V,
        summaries_V2=summary_tokens(phases_V2, world),
    )


def unit_rows(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vectors of the last axis at length 1."""
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _at_least(name: str, value: float, least: float) -> None:
    require(
        value >= least, what=f"planted_hierarchy.{name}", got=value, expected=f"at least {least}", do=f"raise {name}"
    )
