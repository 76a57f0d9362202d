"""What a model knows of planted videos: the accuracy of its answers to the planted questions.

`clip40` names a clip among all words (chance 1/40), `easy` finds the video of a summary among other phases (0.2),
`order` tells it from a real video with the same phases the other way round (0.5), `shuffle` tells the true order of its
clips from permutations (0.2). `easy` and `order` count a strict maximum, `shuffle` shares ties. `shuffle_wrong` and
`shuffle_reversed` ask the same of another video's summary and of the reversed one: only `shuffle` - `shuffle_wrong` is
evidence that order and text are aligned.
Shapes: N clips of all videos, V videos, C clips, D width, A atoms, X vocabulary, E joint space, Q questions, K options.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.multiple_choice import shuffle_mcq
from hvlm.synthetic.planted_controls import reversed_texts, wrong_texts
from hvlm.synthetic.planted_files import text_vectors
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, PlantedVideos
from hvlm.synthetic.planted_questions import (
    VideoQuestions,
    clip_questions,
    easy_questions,
    order_questions,
    shuffle_questions,
)

Floats = NDArray[np.float32]
CHANCE = {"clip40": 1 / 40, "easy": 0.2, "order": 0.5, "shuffle": 0.2, "shuffle_wrong": 0.2, "shuffle_reversed": 0.2}
_SHUFFLE_SEEDS = 5


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


def planted_metrics(
    embedder: PlantedEmbedder, videos: PlantedVideos, config: PlantedHierarchyConfig, seed: int
) -> dict[str, float]:
    """Return the accuracies by the names of `CHANCE`.

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
        "clip40": float((named_N == clips.atoms_N).mean()),
        "easy": _strict_accuracy(easy_questions(videos, seed), summary_VE, video_VE),
        "order": _strict_accuracy(order_questions(videos, seed), summary_VE, video_VE),
        **_shuffle(embedder, videos, texts_VE, seed),
    }


def _strict_accuracy(questions: VideoQuestions, text_VE: Floats, video_VE: Floats) -> float:
    score_QK = np.einsum("qe,qke->qk", text_VE[questions.query_Q], video_VE[questions.options_QK])
    right_Q1 = questions.answer_Q[:, None]
    wrong_QK = score_QK.copy()
    np.put_along_axis(wrong_QK, right_Q1, -np.inf, axis=1)
    return float((np.take_along_axis(score_QK, right_Q1, axis=1)[:, 0] > wrong_QK.max(axis=1)).mean())


def _shuffle(
    embedder: PlantedEmbedder, videos: PlantedVideos, texts_VE: dict[str, Floats], seed: int
) -> dict[str, float]:
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
    return {name: shuffle_mcq(np.stack(each), np.stack(answers)).accuracy for name, each in scores.items()}
