"""What a model is asked about planted videos: the name of a clip, the right video among five, the right order.

The right option stands at a random place, so constant scores do not look like knowledge. How a score becomes a hit is
the metric's business: the gates of `order` and `easy` count a strict maximum, `shuffle` shares ties.
Shapes: Q questions, K options, C clips, V videos, D width, N clips of all videos.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.config import require
from hvlm.synthetic.planted_hierarchy import PlantedVideos

NUM_OPTIONS = 5
Ints = NDArray[np.int64]


class VideoQuestions(NamedTuple):
    """Which video fits the summary of video `query_Q`?

    Attributes:
        query_Q: index of the video whose summary is asked for.
        options_QK: indices of the videos to choose from.
        answer_Q: position of the right option; always the query's own video.
    """

    query_Q: Ints
    options_QK: Ints
    answer_Q: Ints


class ShuffleQuestions(NamedTuple):
    """Which order of the clips fits the video's summary? Question q is about video q.

    Attributes:
        orders_QKC: permutations of 0..C-1; `features[q, orders[q, k]]` are the clips of option k.
        answer_Q: position of the true order.
    """

    orders_QKC: Ints
    answer_Q: Ints


class ClipQuestions(NamedTuple):
    """Which of the A words names the clip? Chance is 1 / A.

    Attributes:
        features_ND: float32, every clip of every video.
        atoms_N: the true atom, which is the right word, without the captions' noise.
    """

    features_ND: NDArray[np.float32]
    atoms_N: Ints


def clip_questions(videos: PlantedVideos) -> ClipQuestions:
    """Return one question for each clip (`clip40` in a world of 40 atoms)."""
    return ClipQuestions(videos.features_VCD.reshape(-1, videos.features_VCD.shape[-1]), videos.atoms_VC.reshape(-1))


def easy_questions(videos: PlantedVideos, seed: int) -> VideoQuestions:
    """Return a 5-way question for each video whose wrong options show another set of two phases.

    A bag of clips is enough to answer. A wrong option may share one phase with the right one.

    Raises:
        UserError: some video has fewer than four videos with another set.
    """
    rng = np.random.default_rng(seed)
    sets_V2 = np.sort(videos.phases_V2, axis=1)
    wrong_QK = np.empty((len(videos), NUM_OPTIONS - 1), dtype=np.int64)
    for video, pair in enumerate(sets_V2):
        others = np.flatnonzero((sets_V2 != pair).any(axis=1))
        require(
            len(others) >= NUM_OPTIONS - 1,
            what=f"videos with other phases than '{videos.ids[video]}'",
            got=len(others),
            expected=f"at least {NUM_OPTIONS - 1}",
            do="make the split larger",
        )
        wrong_QK[video] = rng.choice(others, NUM_OPTIONS - 1, replace=False)
    return _at_random_places(np.arange(len(videos)), wrong_QK, rng)


def order_questions(videos: PlantedVideos, seed: int) -> VideoQuestions:
    """Return a 2-way question for each video that has a partner: a real video of the same phases in the other order.

    Videos without a partner in the split (their reverse is a held-out direction) get no question.
    """
    rng = np.random.default_rng(seed)
    partners = [np.flatnonzero((videos.phases_V2 == pair[::-1]).all(axis=1)) for pair in videos.phases_V2]
    query_Q = np.array([video for video, found in enumerate(partners) if len(found)], dtype=np.int64)
    wrong_Q = np.array([rng.choice(partners[video]) for video in query_Q], dtype=np.int64)
    return _at_random_places(query_Q, wrong_Q[:, None], rng)


def shuffle_questions(num_videos: int, num_clips: int, seed: int) -> ShuffleQuestions:
    """Return a 5-way question for each video: its clips in their order against four other orders.

    Args:
        num_videos: Q.
        num_clips: C, at least 3, so that four other orders exist.
        seed: average the metric over several.

    Raises:
        UserError: fewer than 3 clips.
    """
    require(num_clips >= 3, what="num_clips", got=num_clips, expected="at least 3", do="ask about longer videos")
    rng = np.random.default_rng(seed)
    order_C = np.arange(num_clips)
    wrong_QKC = np.empty((num_videos, NUM_OPTIONS - 1, num_clips), dtype=np.int64)
    for question, option in np.ndindex(num_videos, NUM_OPTIONS - 1):
        permutation = rng.permutation(num_clips)
        while (permutation == order_C).all():
            permutation = rng.permutation(num_clips)
        wrong_QKC[question, option] = permutation
    right_Q1C = np.broadcast_to(order_C, (num_videos, 1, num_clips))
    places_QK = _places(rng, num_videos, NUM_OPTIONS)
    orders_QKC = np.take_along_axis(np.concatenate([right_Q1C, wrong_QKC], axis=1), places_QK[:, :, None], axis=1)
    return ShuffleQuestions(orders_QKC, places_QK.argmin(axis=1))


def _at_random_places(right_Q: Ints, wrong_QK: Ints, rng: np.random.Generator) -> VideoQuestions:
    places_QK = _places(rng, len(right_Q), wrong_QK.shape[1] + 1)
    options_QK = np.take_along_axis(np.concatenate([right_Q[:, None], wrong_QK], axis=1), places_QK, axis=1)
    return VideoQuestions(right_Q, options_QK, places_QK.argmin(axis=1))


def _places(rng: np.random.Generator, num_questions: int, num_options: int) -> Ints:
    """(Q, K) a permutation of 0..K-1 for each question; 0 is the right option before it."""
    return rng.permuted(np.tile(np.arange(num_options), (num_questions, 1)), axis=1)
