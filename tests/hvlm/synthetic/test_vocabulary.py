"""The vocabulary is complete: every action can be drawn and said, and one frame does not give an action away."""

from collections import Counter

from hvlm.synthetic.vocabulary import ACTIONS, COLOURS, FAVOURITE_COLOUR, NOUNS, VERBS


def test_labels_are_distinct_and_every_shape_takes_part_in_two_actions() -> None:
    assert len({action.label for action in ACTIONS}) == len(ACTIONS) == 8
    assert set(Counter(action.shape for action in ACTIONS).values()) == {2}
    assert len({action.motion for action in ACTIONS}) == 8


def test_every_action_has_words_and_a_favourite_colour() -> None:
    for action in ACTIONS:
        assert NOUNS[action.shape]
        assert VERBS[action.motion]
        assert FAVOURITE_COLOUR[action.shape] in COLOURS


def test_no_phrase_belongs_to_two_actions() -> None:
    phrases = [phrase for verbs in VERBS.values() for phrase in verbs]
    assert len(set(phrases)) == len(phrases)
