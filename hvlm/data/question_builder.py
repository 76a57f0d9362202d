"""Builds 5-way questions from annotated clips: which of five clips does the text tell of?

Inter: the wrong clips come from four other videos, so scene and objects help. Intra: they come from the same video and
do not overlap the right one. Summary: like inter, on segments and their summaries.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hvlm.config import Config, require
from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import NUM_CHOICES, Question, QuestionKind
from hvlm.errors import UserError

NUM_WRONG = NUM_CHOICES - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionConfig(Config):
    """Which questions are built.

    Args:
        kind: "inter", "intra" or "summary".
        max_questions: a random subset of this many; None means every clip that has four wrong ones.
        seed: chooses wrong clips, places and the subset.
    """

    kind: str = "inter"
    max_questions: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = [kind.name.lower() for kind in QuestionKind]
        require(self.kind in kinds, what="questions.kind", got=self.kind, expected=f"one of {kinds}", do="correct it")
        require(
            self.max_questions is None or self.max_questions >= 1,
            what="questions.max_questions",
            got=self.max_questions,
            expected="at least 1, or nothing",
            do="raise it",
        )


@dataclass(frozen=True, slots=True)
class BuiltQuestions:
    """The questions, sorted by video, span and text of the query, and the rows that found no four wrong clips."""

    questions: list[Question]
    without_choices: list[ClipRow]


def build_questions(rows: Iterable[ClipRow], config: QuestionConfig) -> BuiltQuestions:
    """Return a question for each row; equal rows in any order give equal questions.

    A wrong clip never has the query's text (but for case and blanks), for it would be right as well. Inter and summary:
    four videos are drawn, then a clip of each. Intra: four clips of the video that do not overlap the query's span.

    Args:
        rows: clips of the videos to ask about; take them from one split.
        config: kind, number, seed.
    """
    rng = np.random.default_rng(config.seed)
    ordered = sorted(rows, key=lambda row: (row.video_id, row.span_s, row.text, row.annotator or ""))
    by_video: dict[str, list[ClipRow]] = {}
    for row in ordered:
        by_video.setdefault(row.video_id, []).append(row)
    videos = list(by_video)
    kind = QuestionKind[config.kind.upper()]
    built = BuiltQuestions([], [])
    limit = len(ordered) if config.max_questions is None else config.max_questions
    for index in rng.permutation(len(ordered)):
        if len(built.questions) == limit:
            break
        query = ordered[index]
        if kind is QuestionKind.INTRA:
            wrong = _of_same_video(query, by_video[query.video_id], rng)
        else:
            wrong = _of_other_videos(query, by_video, videos, rng)
        if len(wrong) < NUM_WRONG:
            built.without_choices.append(query)
            continue
        answer = int(rng.integers(NUM_CHOICES))
        choices = (*wrong[:answer], query, *wrong[answer:])
        built.questions.append(Question(query, choices, answer, kind))
    built.questions.sort(key=lambda question: (question.query.video_id, question.query.span_s, question.query.text))
    built.without_choices.sort(key=lambda row: (row.video_id, row.span_s, row.text))
    return built


def require_disjoint(
    train_ids: Iterable[str], test_ids: Iterable[str], names: tuple[str, str] = ("training", "test")
) -> None:
    """Raise unless no video is on both sides, whose names stand in the error.

    Raises:
        UserError: names up to five shared videos and how many there are.
    """
    shared = sorted(set(train_ids) & set(test_ids))
    if shared:
        raise UserError(
            what=f"videos in both the {names[0]} and the {names[1]} rows",
            got=f"{len(shared)}: {', '.join(shared[:5])}",
            expected="none, for a question about a trained video measures memory",
            do="split by source video",
        )


def _of_same_video(query: ClipRow, rows: Sequence[ClipRow], rng: np.random.Generator) -> list[ClipRow]:
    others = [row for row in rows if not _overlap(row, query) and not _same_text(row, query)]
    return [others[index] for index in rng.permutation(len(others))[:NUM_WRONG]]


def _of_other_videos(
    query: ClipRow, by_video: dict[str, list[ClipRow]], videos: Sequence[str], rng: np.random.Generator
) -> list[ClipRow]:
    wrong: list[ClipRow] = []
    for index in rng.permutation(len(videos)):
        if len(wrong) == NUM_WRONG:
            break
        rows = by_video[videos[index]]
        if videos[index] == query.video_id:
            continue
        drawn = (rows[place] for place in rng.permutation(len(rows)))
        wrong.extend(itertools.islice((row for row in drawn if not _same_text(row, query)), 1))
    return wrong


def _overlap(one: ClipRow, two: ClipRow) -> bool:
    return one.span_s[0] < two.span_s[1] and two.span_s[0] < one.span_s[1]


def _same_text(one: ClipRow, two: ClipRow) -> bool:
    return one.text.casefold().split() == two.text.casefold().split()
