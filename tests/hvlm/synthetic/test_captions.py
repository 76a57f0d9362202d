"""Captions name what happens; summaries tell it in its order."""

import numpy as np

from hvlm.synthetic.captions import caption_of, describe, summarise
from hvlm.synthetic.vocabulary import ACTIONS, NOUNS, VERBS


def test_a_clause_names_colour_shape_and_motion() -> None:
    rng = np.random.default_rng(0)
    for action in ACTIONS:
        clause = describe(action, "red", rng)
        article, colour, noun, verb = clause.split(" ", 3)
        assert (article, colour) == ("a", "red")
        assert noun in NOUNS[action.shape]
        assert verb in VERBS[action.motion]


def test_captions_and_summaries_come_in_several_wordings() -> None:
    rng = np.random.default_rng(0)
    assert len({caption_of("a red star trembles", rng) for _ in range(50)}) >= 4
    assert len({summarise(["a", "b", "c"], rng) for _ in range(50)}) >= 3


def test_a_summary_tells_the_clauses_in_order() -> None:
    rng = np.random.default_rng(0)
    clauses = ["a red star trembles", "a blue box swells up", "a white disc sweeps by", "a red triangle flashes"]
    for _ in range(20):
        text = summarise(clauses, rng)
        places = [text.lower().index(clause) for clause in clauses]
        assert places == sorted(places)
        assert text[0].isupper()
        assert text.endswith(".")


def test_a_summary_of_two() -> None:
    texts = {
        summarise(["a red star trembles", "a blue box swells up"], np.random.default_rng(seed)) for seed in range(20)
    }
    assert "First a red star trembles, and finally a blue box swells up." in texts
