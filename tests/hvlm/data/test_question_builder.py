import random

import numpy as np
import pytest

from hvlm.data.question_builder import QuestionConfig, build_questions, require_disjoint
from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import QuestionKind, read_questions, write_questions
from hvlm.errors import UserError

ROWS = [
    ClipRow(f"v{video}", (3.0 * clip, 3.0 * clip + 4.0), f"clip {clip} of {video}")
    for video in range(9)
    for clip in range(8)
]


@pytest.mark.parametrize("kind", ["inter", "summary"])
def test_wrong_clips_come_from_four_other_videos(kind):
    built = build_questions(ROWS, QuestionConfig(kind=kind))
    assert [question.query for question in built.questions] == ROWS
    assert built.without_choices == []
    for question in built.questions:
        assert question.kind == QuestionKind[kind.upper()]
        assert question.choices[question.answer] == question.query
        assert len({choice.video_id for choice in question.choices}) == 5


def test_wrong_clips_of_the_same_video_do_not_overlap_the_right_one():
    built = build_questions(ROWS, QuestionConfig(kind="intra"))
    assert len(built.questions) == len(ROWS)
    for question in built.questions:
        assert question.choices[question.answer] == question.query
        assert len(set(question.choices)) == 5
        assert {choice.video_id for choice in question.choices} == {question.query.video_id}
        # Each span overlaps the next by 1 s.
        starts = {choice.span_s[0] for choice in question.choices} - {question.query.span_s[0]}
        assert all(abs(start - question.query.span_s[0]) >= 4.0 for start in starts)


def test_a_clip_with_the_same_text_is_no_wrong_choice():
    rows = [ClipRow(f"v{video}", (0.0, 1.0), "A  Cat Sits" if video < 3 else f"text {video}") for video in range(7)]
    rows[1] = rows[1]._replace(text="a cat sits")
    for question in build_questions(rows, QuestionConfig()).questions:
        assert (
            sum(choice.text.lower().split() == question.query.text.lower().split() for choice in question.choices) == 1
        )


def test_rows_without_four_wrong_clips_are_listed():
    rows = [*ROWS[:8], ClipRow("alone", (0.0, 1.0), "a text")]
    intra = build_questions(rows, QuestionConfig(kind="intra"))
    assert intra.without_choices == [rows[-1]]
    assert len(intra.questions) == 8
    inter = build_questions(rows, QuestionConfig(kind="inter"))
    assert (inter.questions, len(inter.without_choices)) == ([], 9)


def test_a_seed_gives_the_same_questions_whatever_the_order_of_the_rows():
    mixed = random.Random(0).sample(ROWS, len(ROWS))
    config = QuestionConfig(max_questions=30, seed=5)
    once, again = build_questions(ROWS, config), build_questions(mixed, config)
    assert once == again and len(once.questions) == 30
    assert build_questions(ROWS, QuestionConfig(max_questions=30, seed=6)) != once


def test_the_answer_stands_at_every_place_and_every_video_is_drawn():
    rows = [ClipRow(f"v{index:03d}", (0.0, 1.0), f"text {index}") for index in range(400)]
    questions = build_questions(rows, QuestionConfig()).questions
    # 400 questions: two standard errors of a share of .2 are .04.
    assert np.bincount([question.answer for question in questions]) / 400 == pytest.approx(0.2, abs=0.07)
    drawn = {choice.video_id for question in questions for choice in question.choices if choice != question.query}
    # Each video is missed by 1600 draws with probability e^-4.
    assert len(drawn) > 370


def test_the_file_reads_back():
    questions = build_questions(ROWS, QuestionConfig(kind="summary", max_questions=7)).questions
    assert read_questions(write_questions(questions)).rows == questions


def test_shared_videos_are_named():
    require_disjoint(["a", "b"], ["c"])
    with pytest.raises(UserError, match="got 2: a, b"):
        require_disjoint(["b", "a", "a", "x"], ["a", "b", "y"])
    with pytest.raises(UserError, match="the training and the validation rows"):
        require_disjoint(["a"], ["a"], ("training", "validation"))


@pytest.mark.parametrize("wrong", [{"kind": "other"}, {"max_questions": 0}])
def test_another_config_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        QuestionConfig(**wrong)
