"""What a model knows of planted videos: the accuracy of its answers to the planted questions.

`clip40` names a clip among all words (40 in the world of the specification), `easy` finds the video of a summary among
other phases, `order` tells it from a real video with the same phases the other way round, `shuffle` tells the true
order of its clips from permutations; `chance` says what guessing gives. `easy` and `order` count a strict maximum,
`shuffle` shares ties. `shuffle_wrong` and `shuffle_reversed` ask the same of another video's summary and of the
reversed one: only `shuffle` - `shuffle_wrong` is evidence that order and text are aligned.
Shapes: N clips of all videos, V videos, C clips, D width, A atoms, X vocabulary, E joint space, Q questions, K options.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.multiple_choice import shuffle_credit
from hvlm.synthetic.planted_controls import bag_of_words, leak_scores, reversed_texts, scene_only, wrong_texts
from hvlm.synthetic.planted_files import text_vectors
from hvlm.synthetic.planted_hierarchy import PlantedHierarchy, PlantedHierarchyConfig, PlantedVideos
from hvlm.synthetic.planted_questions import (
    NUM_OPTIONS,
    VideoQuestions,
    clip_questions,
    easy_questions,
    order_questions,
    shuffle_questions,
)

Floats = NDArray[np.float32]
METRICS = ("clip40", "easy", "order", "shuffle", "shuffle_wrong", "shuffle_reversed")
_SHUFFLE_SEEDS = 5


class Answers(NamedTuple):
    """What each question is worth, in [0, 1]; the same questions in the same order for every model.

    `clip40` asks about every clip, so its questions are not as independent as so many videos would be. `shuffle` asks
    of 5 permutation seeds, which make no further questions.
    """

    credit_Q: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """The mean; NaN without questions."""
        return float(self.credit_Q.mean()) if len(self.credit_Q) else math.nan


class PlantedEmbedder(Protocol):
    """A model as the questions see it; all vectors that it gives have length 1."""

    def clips(self, features_ND: Floats) -> Floats:
        """(N, D) single clips → (N, E)."""
        ...

    def videos(self, features_VCD: Floats) -> Floats:
        """(V, C, D) clips in their order → (V, E)."""
        ...

    def texts(self, vectors_NX: Floats) -> Floats:
        """(N, X) of `text_vectors` → (N, E)."""
        ...


def chance(config: PlantedHierarchyConfig) -> dict[str, float]:
    """Return what guessing gives in a world, by the names of `METRICS`."""
    guessed = {"clip40": 1 / config.num_atoms, "order": 0.5}
    return {name: guessed.get(name, 1 / NUM_OPTIONS) for name in METRICS}


def planted_metrics(
    embedder: PlantedEmbedder, videos: PlantedVideos, config: PlantedHierarchyConfig, seed: int
) -> dict[str, Answers]:
    """Return the answers by the names of `METRICS`.

    Args:
        embedder: the model.
        videos: of a test split.
        config: of the world.
        seed: of questions and permutations.

    Raises:
        UserError: the split is too small to ask.
    """
    clips = clip_questions(videos)
    words_AE = embedder.texts(text_vectors(np.arange(config.num_atoms)[:, None], config))
    named_N = (embedder.clips(clips.features_ND) @ words_AE.T).argmax(axis=1)
    video_VE = embedder.videos(videos.features_VCD)
    summary_VE = embedder.texts(text_vectors(videos.summaries_V2, config))
    texts_VE = {
        "shuffle": summary_VE,
        "shuffle_wrong": embedder.texts(text_vectors(wrong_texts(videos, seed), config)),
        "shuffle_reversed": embedder.texts(text_vectors(reversed_texts(videos, config), config)),
    }
    return {
        "clip40": Answers((named_N == clips.atoms_N).astype(np.float64)),
        "easy": _strict(easy_questions(videos, seed), summary_VE, video_VE),
        "order": _strict(order_questions(videos, seed), summary_VE, video_VE),
        **_shuffle(embedder, videos, texts_VE, seed),
    }


def leak_metrics(world: PlantedHierarchy, videos: PlantedVideos, seed: int) -> dict[str, Answers]:
    """Return what the leak checks answer, `scene/easy`, `scene/order`, `words/easy` and `words/order`.

    Args:
        world: whose training videos the checks learn from.
        videos: of a test split.
        seed: of the questions.

    Raises:
        UserError: the split is too small to ask.
    """
    config = world.config
    inputs = {
        "scene": (scene_only(world.train), scene_only(videos)),
        "words": (bag_of_words(world.train, config), bag_of_words(videos, config)),
    }
    found = {}
    for source, (train_NX, test_VX) in inputs.items():
        score_VT = leak_scores(train_NX, world.train, test_VX, config)
        for name, questions in (("easy", easy_questions(videos, seed)), ("order", order_questions(videos, seed))):
            tokens_Q2 = videos.summaries_V2[questions.query_Q] - config.num_atoms
            score_QK = np.take_along_axis(score_VT[questions.options_QK], tokens_Q2[:, None], axis=2).sum(axis=2)
            found[f"{source}/{name}"] = _strict_answers(score_QK, questions.answer_Q)
    return found


def _strict_answers(score_QK: NDArray[np.floating], answer_Q: NDArray[np.int64]) -> Answers:
    """A tie is no hit."""
    right_Q1 = answer_Q[:, None]
    wrong_QK = score_QK.copy()
    np.put_along_axis(wrong_QK, right_Q1, -np.inf, axis=1)
    hit_Q = np.take_along_axis(score_QK, right_Q1, axis=1)[:, 0] > wrong_QK.max(axis=1)
    return Answers(hit_Q.astype(np.float64))


def _strict(questions: VideoQuestions, text_VE: Floats, video_VE: Floats) -> Answers:
    score_QK = np.einsum("qe,qke->qk", text_VE[questions.query_Q], video_VE[questions.options_QK])
    return _strict_answers(score_QK, questions.answer_Q)


def _shuffle(
    embedder: PlantedEmbedder, videos: PlantedVideos, texts_VE: dict[str, Floats], seed: int
) -> dict[str, Answers]:
    scores: dict[str, list[Floats]] = {name: [] for name in texts_VE}
    answers = []
    for number in range(_SHUFFLE_SEEDS):
        questions = shuffle_questions(len(videos), videos.features_VCD.shape[1], seed * _SHUFFLE_SEEDS + number)
        options = [
            embedder.videos(np.take_along_axis(videos.features_VCD, order_VC[:, :, None], axis=1))
            for order_VC in questions.orders_QKC.swapaxes(0, 1)
        ]
        for name, text_VE in texts_VE.items():
            scores[name].append(np.stack([(text_VE * option_VE).sum(axis=1) for option_VE in options], axis=1))
        answers.append(questions.answer_Q)
    return {name: Answers(shuffle_credit(np.stack(each), np.stack(answers))) for name, each in scores.items()}
