"""EgoMCQ and SummaryMCQ files, read and written: a text and five clips, one of which it tells of.

    {"0": {"query": {row}, "choices": {"0": {row}, ..., "4": {row}}, "answer": 3, "types": 1}, "1": ...}

A row is an object with the columns of `egoclip.py`; video, span and text are needed, the rest may be missing. Types:
1 = clips of other videos, 2 = clips of the same video, 3 = segments of other videos with summaries.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from hvlm.data.readers.egoclip import ClipRow, clip_row, clip_values
from hvlm.data.readers.parsing import read_json_mapping, refuse, whole_number
from hvlm.data.readers.rows import Problem, Rows

NUM_CHOICES = 5


class QuestionKind(IntEnum):
    """The `types` of the file."""

    INTER = 1
    INTRA = 2
    SUMMARY = 3


class Question(NamedTuple):
    """A 5-way question.

    Attributes:
        query: its text is asked for.
        choices: five clips.
        answer: index of the right choice.
        kind: where the wrong choices come from.
    """

    query: ClipRow
    choices: tuple[ClipRow, ...]
    answer: int
    kind: QuestionKind


@dataclass(frozen=True, slots=True)
class Answerable:
    """Questions whose five videos are stored, and the videos that the store lacks with the number of questions lost."""

    questions: list[Question]
    absent: dict[str, int]


def read_questions(text: str, origin: str = "egomcq.json") -> Rows[Question]:
    """Return the questions in the order of their numbers.

    A question with a span that cannot be is left out, for it would have four choices; one with a span that is cut
    stays. Both are listed.

    Raises:
        UserError: not JSON, questions not numbered from 0, or an entry of another shape; names the question.
    """
    content = read_json_mapping(text, origin)
    read: Rows[Question] = Rows([], [])
    for key in _numbered(content, len(content), origin):
        question = _read_question(content[key], f"{origin}, question {key}", read.problems)
        if question is not None:
            read.rows.append(question)
    return read


def write_questions(questions: Iterable[Question]) -> str:
    """Return the text of a file that `read_questions` reads back to equal questions."""
    content = {
        str(number): {
            "query": clip_values(question.query),
            "choices": {str(index): clip_values(choice) for index, choice in enumerate(question.choices)},
            "answer": question.answer,
            "types": int(question.kind),
        }
        for number, question in enumerate(questions)
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def answerable(questions: Iterable[Question], video_ids: Collection[str]) -> Answerable:
    """Return the questions that stored videos can answer, and what is lost to each video that the store lacks."""
    stored = frozenset(video_ids)
    kept: list[Question] = []
    lost: dict[str, int] = {}
    for question in questions:
        absent = {choice.video_id for choice in question.choices} - stored
        for video_id in absent:
            lost[video_id] = lost.get(video_id, 0) + 1
        if not absent:
            kept.append(question)
    return Answerable(kept, dict(sorted(lost.items())))


def _read_question(entry: Any, place: str, problems: list[Problem]) -> Question | None:
    if not isinstance(entry, dict):
        refuse(place, type(entry).__name__, "an object")
    for name in ("query", "choices", "answer", "types"):
        if name not in entry:
            refuse(place, f"no '{name}'", "query, choices, answer and types")
    kind = whole_number(entry["types"], f"{place}, types")
    if kind not in list(QuestionKind):
        refuse(f"{place}, types", kind, "1 (inter), 2 (intra) or 3 (summary)")
    answer = whole_number(entry["answer"], f"{place}, answer")
    if answer >= NUM_CHOICES:
        refuse(f"{place}, answer", answer, f"0 to {NUM_CHOICES - 1}")
    values = {"query": entry["query"]}
    for key in _numbered(entry["choices"], NUM_CHOICES, f"{place}, choices"):
        values[f"choice {key}"] = entry["choices"][key]
    rows: list[ClipRow] = []
    for name, value in values.items():
        if not isinstance(value, dict):
            refuse(f"{place}, {name}", type(value).__name__, "an object")
        row, problem = clip_row(value, f"{place}, {name}")
        if problem is not None:
            lost = "" if row is not None else ", and the question with it"
            problems.append(problem._replace(message=problem.message + lost))
        if row is None:
            return None
        rows.append(row)
    return Question(rows[0], tuple(rows[1:]), answer, QuestionKind(kind))


def _numbered(entries: Any, count: int, place: str) -> list[str]:
    """The keys "0" to "count - 1" in that order."""
    keys = [str(number) for number in range(count)]
    if not isinstance(entries, dict) or set(entries) != set(keys):
        got = sorted(entries)[:8] if isinstance(entries, dict) else type(entries).__name__
        refuse(place, got, f'an object with the keys "0" to "{count - 1}"')
    return keys
