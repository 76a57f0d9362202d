"""The sentences of the planted world: a caption of one action, a summary of several in their order."""

from collections.abc import Sequence

import numpy as np

from hvlm.synthetic.vocabulary import CAPTION_TEMPLATES, NOUNS, SUMMARY_TEMPLATES, VERBS, Action


def describe(action: Action, colour: str, rng: np.random.Generator) -> str:
    """Return what happens, e.g. `a red disc keeps bouncing`."""
    nouns, verbs = NOUNS[action.shape], VERBS[action.motion]
    return f"a {colour} {nouns[int(rng.integers(len(nouns)))]} {verbs[int(rng.integers(len(verbs)))]}"


def caption_of(clause: str, rng: np.random.Generator) -> str:
    """Return the clip caption that says `clause` in one of several ways."""
    return _sentence(CAPTION_TEMPLATES[int(rng.integers(len(CAPTION_TEMPLATES)))].format(clause))


def summarise(clauses: Sequence[str], rng: np.random.Generator) -> str:
    """Return one sentence that tells the clauses in their order (`first ..., then ..., and finally ...`).

    Args:
        clauses: two or more results of `describe`, in order of time.
        rng: chooses among the paraphrases.
    """
    opening, middle, closing = SUMMARY_TEMPLATES[int(rng.integers(len(SUMMARY_TEMPLATES)))]
    first, *between, last = clauses
    return _sentence(
        opening.format(first) + "".join(middle.format(clause) for clause in between) + closing.format(last)
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
