"""The controls that a claim about the planted world must carry: other texts, spoilt training data, leak checks.

Text controls for ShuffleMCQ: only (true text - wrong text) is evidence that order and text are aligned. Trained on
permuted summaries a method must be at chance everywhere, on clips in shuffled order at chance on order. The leak checks
answer from what should not be enough: the scene, or the bag of the captions' words. Measured on the default world, mean
of seeds 0 to 4: scene order .494, easy .196; words order .499, easy .764, for a bag of words tells which phases there
are. So `easy` measures naming, and `order` alone needs the clips in their order.
Shapes: V videos (N for training), C clips, D width, A atoms, X width of a leak check's input, P phases.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hvlm.config import require
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, PlantedVideos, summary_tokens, unit_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RIDGE = 1e-2


def wrong_texts(videos: PlantedVideos, seed: int) -> Ints:
    """Return (V, 2) for each video the summary of a random other video that says something else.

    Raises:
        UserError: all videos have the same summary.
    """
    rng = np.random.default_rng(seed)
    wrong_V2 = np.empty_like(videos.summaries_V2)
    for video, summary in enumerate(videos.summaries_V2):
        others = np.flatnonzero((videos.summaries_V2 != summary).any(axis=1))
        require(
            len(others) > 0,
            what=f"summaries other than that of '{videos.ids[video]}'",
            got=0,
            expected="at least 1",
            do="make the split larger",
        )
        wrong_V2[video] = videos.summaries_V2[rng.choice(others)]
    return wrong_V2


def reversed_texts(videos: PlantedVideos, config: PlantedHierarchyConfig) -> Ints:
    """Return (V, 2) for each video the summary that tells its phases in the wrong order."""
    return summary_tokens(videos.phases_V2[:, ::-1], config)


def permute_summaries(videos: PlantedVideos, seed: int) -> PlantedVideos:
    """Return the videos with their summaries shuffled among them; clips and captions stay."""
    order_V = np.random.default_rng(seed).permutation(len(videos))
    return replace(videos, summaries_V2=videos.summaries_V2[order_V])


def shuffle_clips(videos: PlantedVideos, seed: int) -> PlantedVideos:
    """Return the videos with the clips of each in a random order, each clip with its caption."""
    order_VC = np.random.default_rng(seed).permuted(np.indices(videos.atoms_VC.shape)[1], axis=1)
    return replace(
        videos,
        features_VCD=np.take_along_axis(videos.features_VCD, order_VC[..., None], axis=1),
        backgrounds_VCD=np.take_along_axis(videos.backgrounds_VCD, order_VC[..., None], axis=1),
        atoms_VC=np.take_along_axis(videos.atoms_VC, order_VC, axis=1),
        captions_VC=np.take_along_axis(videos.captions_VC, order_VC, axis=1),
    )


def scene_only(videos: PlantedVideos) -> Floats:
    """Return (V, D) unit vectors: the mean over clips of what is left of a feature without its atom."""
    return unit_rows(videos.backgrounds_VCD.mean(axis=1, dtype=np.float64))


def bag_of_words(videos: PlantedVideos, config: PlantedHierarchyConfig) -> Floats:
    """Return (V, A) the share of each word among the captions of a video."""
    shares_VA: Floats = (videos.captions_VC[..., None] == np.arange(config.num_atoms)).mean(axis=1)
    return shares_VA


def leak_scores(train_NX: Floats, train: PlantedVideos, test_VX: Floats, config: PlantedHierarchyConfig) -> Floats:
    """Return (V, 2P) how strongly an input speaks for each summary token, by ridge regression on the training videos.

    The score of a summary is the sum over its two tokens (column = token - A), so a direction that training has not
    seen can be scored too. What this plain model finds does leak; what it does not find may still leak.

    Args:
        train_NX: `scene_only` or `bag_of_words` of the training videos.
        train: the training videos, for their summaries.
        test_VX: the same input of the videos to be asked about.
        config: of the world.
    """
    token_NT = (train.summaries_V2[..., None] == config.num_atoms + np.arange(2 * config.num_phases)).sum(axis=1)
    mean_X, mean_T = train_NX.mean(axis=0), token_NT.mean(axis=0)
    centred_NX = train_NX - mean_X
    gram_XX = centred_NX.T @ centred_NX + RIDGE * len(train) * np.eye(train_NX.shape[1])
    weights_XT = np.linalg.solve(gram_XX, centred_NX.T @ (token_NT - mean_T))
    scores_VT: Floats = (test_VX - mean_X) @ weights_XT
    return scores_VT
