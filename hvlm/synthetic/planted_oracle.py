"""How well the planted questions can be answered at all: the score of someone who knows the generator.

For each direction (a, b) the likelihood of a video is summed over the cuts; a clip's is a mixture of the phase's atoms
and the fillers. Only the scene is unknown: it is counted as noise of its own, clip by clip.
Measured on the default world, mean of seeds 0 to 4 (lowest): order .998 (.994), easy .986 (.978); on the held-out pairs
order 1.000 (1.000), easy .983 (.960); from the true atoms 1.000 everywhere. So the ceiling is about 1.
Shapes: V videos, C clips, D width, A atoms, P phases, R directions, S places of the cut.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, directions, phase_of_atoms

Floats = NDArray[np.float64]


def clip_log_likelihood(
    features_VCD: NDArray[np.float32], prototypes_AD: NDArray[np.float32], config: PlantedHierarchyConfig
) -> Floats:
    """Return (V, C, A) log p(feature | atom) up to a constant of the clip.

    Before it was normalised a feature was prototype + Gaussian of variance (scene² + noise²) / D in each dimension, and
    its length was about sqrt(1 + scene² + noise²).
    """
    spread = config.scene_weight**2 + config.noise_norm**2
    cosine_VCA = features_VCD.astype(np.float64) @ prototypes_AD.T.astype(np.float64)
    likelihood_VCA: Floats = cosine_VCA * (np.sqrt(1 + spread) * config.dim / spread)
    return likelihood_VCA


def direction_log_posterior(clip_log_likelihood_VCA: Floats, config: PlantedHierarchyConfig) -> Floats:
    """Return (V, R) log p(direction | video), directions in the order of `directions`, all equally likely before.

    Args:
        clip_log_likelihood_VCA: from `clip_log_likelihood`, or 0 at the true atom and -inf elsewhere.
        config: of the world.
    """
    phase_A = phase_of_atoms(config)
    with np.errstate(divide="ignore"):  # phase_share 0 or 1: the log of the absent part is -inf, as it must be.
        log_share, log_rest = np.log(config.phase_share), np.log1p(-config.phase_share)
    filler_VC = log_rest + _log_mean(clip_log_likelihood_VCA[..., phase_A < 0])
    phase_VCP = np.stack(
        [
            np.logaddexp(log_share + _log_mean(clip_log_likelihood_VCA[..., phase_A == phase]), filler_VC)
            for phase in range(config.num_phases)
        ],
        axis=-1,
    )
    first_R, second_R = directions(config.num_phases).T
    likelihood_VSR = np.stack(
        [
            phase_VCP[:, :cut].sum(axis=1)[:, first_R] + phase_VCP[:, cut:].sum(axis=1)[:, second_R]
            for cut in range(config.min_first_clips, config.max_first_clips + 1)
        ],
        axis=1,
    )
    likelihood_VR: Floats = logsumexp(likelihood_VSR, axis=1)
    posterior_VR: Floats = likelihood_VR - logsumexp(likelihood_VR, axis=1, keepdims=True)
    return posterior_VR


def _log_mean(values: Floats) -> Floats:
    mean: Floats = logsumexp(values, axis=-1) - np.log(values.shape[-1])
    return mean
