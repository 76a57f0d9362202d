import json

import pytest

from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import Question, QuestionKind, answerable, read_questions, write_questions
from hvlm.errors import UserError


def row(video, start=0.0, end=2.0):
    return {
        "video_uid": video,
        "clip_start": start,
        "clip_end": end,
        "clip_text": f"text of {video}",
        "tag_verb": "[1]",
    }


def entry(**changes):
    choices = {str(index): row(f"v{index}") for index in range(5)}
    return {"query": row("v3"), "choices": choices, "answer": 3, "types": 1} | changes


def read(**questions):
    return read_questions(json.dumps({key.removeprefix("q"): value for key, value in questions.items()}), "mcq.json")


def test_the_official_layout():
    found = read(q1=entry(types=2, answer=0), q0=entry())
    first, second = found.rows
    assert (first.kind, first.answer, second.kind, second.answer) == (QuestionKind.INTER, 3, QuestionKind.INTRA, 0)
    assert [choice.video_id for choice in first.choices] == ["v0", "v1", "v2", "v3", "v4"]
    assert first.query == ClipRow("v3", (0.0, 2.0), "text of v3", verbs=(1,))
    assert found.problems == []


def test_what_is_written_is_read_back():
    rows = tuple(
        ClipRow(f"v{i}", (0.5 * i, i + 1.0), f"tëxt {i}", (1, 2), (), "pass_1", 0.5, 9.0, 4, i) for i in range(5)
    )
    questions = [Question(rows[2], rows, 2, QuestionKind.SUMMARY), Question(rows[0], rows, 0, QuestionKind.INTRA)]
    text = write_questions(questions)
    assert read_questions(text).rows == questions
    assert json.loads(text)["0"]["choices"]["3"]["tag_verb"] == "[1, 2]"
    assert json.loads(text)["0"]["types"] == 3


def test_a_question_with_a_span_that_cannot_be_is_left_out_and_listed():
    choices = entry()["choices"] | {"2": row("v2", start=3.0)}
    cut = entry()["choices"] | {"1": row("v1") | {"video_dur": 1.0}}
    found = read(q0=entry(), q1=entry(choices=choices), q2=entry(choices=cut))
    assert len(found.rows) == 2
    assert found.rows[1].choices[1].span_s == (0.0, 1.0)
    assert [problem.where for problem in found.problems] == [
        "mcq.json, question 1, choice 2",
        "mcq.json, question 2, choice 1",
    ]
    assert "left out, and the question with it" in found.problems[0].message
    assert found.problems[1].message.endswith("cut")


def test_questions_about_absent_videos_are_counted_by_video():
    questions = read(q0=entry(), q1=entry(choices={str(index): row("v0") for index in range(5)})).rows
    found = answerable(questions, {"v0", "v1", "v2"})
    assert found.questions == [questions[1]]
    assert found.absent == {"v3": 1, "v4": 1}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"answer": 5}, "question 0, answer"),
        ({"answer": None}, "question 0, answer"),
        ({"types": 4}, "question 0, types"),
        ({"choices": {"0": row("v")}}, "question 0, choices"),
        ({"choices": []}, "question 0, choices"),
        ({"query": "a text"}, "question 0, query"),
        ({"query": row("v") | {"clip_end": "late"}}, "question 0, query, clip_end"),
    ],
)
def test_an_entry_of_another_shape_is_refused_with_its_place(changes, place):
    with pytest.raises(UserError, match=rf"^mcq\.json, {place}: got"):
        read(q0=entry(**changes))


def test_numbers_with_a_gap_and_missing_keys_are_refused():
    with pytest.raises(UserError, match='"0" to "1"'):
        read(q0=entry(), q2=entry())
    with pytest.raises(UserError, match="no 'types'"):
        read(q0={name: value for name, value in entry().items() if name != "types"})
