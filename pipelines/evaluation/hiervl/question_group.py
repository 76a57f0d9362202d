"""Five-way questions: which of five clips, or segments, does a text tell of? And which order of a video's own clips?

Questions come from files (EgoMCQ, SummaryMCQ) or are built from the store's captions and summaries. A hit is the
official argmax; ShuffleMCQ shares ties, because a model that knows no order has five equal options.

Shapes: Q questions, O options, E joint space, S permutations' seeds.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hvlm.data.question_builder import QuestionConfig, build_questions
from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import NUM_CHOICES, Question, QuestionKind, answerable, write_questions
from hvlm.metrics.classification import unit_rows
from hvlm.metrics.comparison import paired_bootstrap
from hvlm.metrics.multiple_choice import choice_accuracy, question_credit, shuffle_credit, shuffle_mcq
from pipelines.evaluation.hiervl.groups import Outcome, StoreGroup
from pipelines.evaluation.hiervl.places import Place, VideoVectors
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, OURS, RAW, Absent, MetricRow, with_note
from pipelines.training.hiervl.questions import SEED, shuffle_scores, wrong_texts

CHANCE = 1 / NUM_CHOICES
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class QuestionFileGroup:
    """The questions of a file; those about a clip draw `num_frames` frames, those about a summary take segments.

    Args:
        name, title: of the section; the metrics are called after the name.
        questions: of the file.
        num_frames: of a clip.
    """

    name: str
    title: str
    questions: Sequence[Question]
    num_frames: int
    beside_text: bool = True

    def places(self) -> Iterable[Place]:
        """Return all choices."""
        return (place for question in self.questions for place in self._options(question))

    def texts(self) -> Iterable[str]:
        """Return all queries."""
        return (question.query.text for question in self.questions)

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return the accuracies of the questions whose five videos are in the split."""
        known = answerable(self.questions, vectors.reported_ids)
        kept = [question for question in known.questions if all(map(vectors.has, self._options(question)))]
        prefix, unasked = f"{vectors.split}/*/{self.name}", len(known.questions) - len(kept)
        absent = [Absent(prefix, f"{unasked} questions have a choice without a row of features")] if unasked else []
        if not kept:
            return Outcome(absent=[*absent, Absent(prefix, _no_questions(vectors))], missing=known.absent)
        scores = {
            kind: _scores(vectors, kind, kept, [place for each in kept for place in self._options(each)])
            for kind in KINDS
        }
        rows = []
        for kind in dict.fromkeys(question.kind for question in kept):
            mine = [i for i, question in enumerate(kept) if question.kind == kind]
            level = f"{vectors.split}/video" if kind is QuestionKind.SUMMARY else f"{vectors.split}/clip"
            part = "" if kind is QuestionKind.SUMMARY else f"/{kind.name.lower()}"
            of_kind = {column: score_QO[mine] for column, score_QO in scores.items()}
            rows.append(accuracy_row(f"{level}/{self.name}{part}/accuracy", of_kind, [kept[i] for i in mine]))
        predicted = [each._replace(answer=int(best)) for each, best in zip(kept, scores[OURS].argmax(1), strict=True)]
        return Outcome(
            rows=[with_note(row, f"{len(self.questions)} questions in the file") for row in rows],
            absent=absent,
            missing=known.absent,
            predictions={
                f"predictions_{self.name}_{vectors.split}.json": write_questions(predicted).encode(),
                f"questions_{self.name}_{vectors.split}.parquet": question_records(kept, scores),
            },
        )

    def _options(self, question: Question) -> list[Place]:
        frames = None if question.kind is QuestionKind.SUMMARY else self.num_frames
        return [Place(choice.video_id, *choice.span_s, frames) for choice in question.choices]


@dataclass(frozen=True, slots=True)
class StoreQuestionGroup(StoreGroup):
    """Questions built from the store: CaptionMCQ (inter, intra) of clips, SummaryMCQ and ShuffleMCQ of videos."""

    num_frames: int
    name: str = "questions"
    title: str = "Multiple choice, questions built from the store's texts"
    beside_text: bool = True

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return the accuracies of the questions that the split's captions and summaries make."""
        rows: list[MetricRow] = []
        absent: list[Absent] = []
        predictions: dict[str, bytes] = {}
        columns: dict[str, dict[str, float]] = {}
        for kind in QuestionKind:
            name = _built_name(kind)
            full = f"{vectors.split}/{name}/accuracy"
            frames = None if kind is QuestionKind.SUMMARY else self.num_frames
            config = QuestionConfig(kind=kind.name.lower(), seed=SEED)
            questions = build_questions(_clip_rows(vectors, frames), config).questions
            if not questions:
                absent.append(Absent(full, "no text of the split has four others to stand beside"))
                continue
            options = [Place(choice.video_id, *choice.span_s, frames) for each in questions for choice in each.choices]
            scores = {column: _scores(vectors, column, questions, options) for column in KINDS}
            rows.append(with_note(accuracy_row(full, scores, questions), f"built from the store's texts, seed {SEED}"))
            stem = f"questions_{name.replace('/', '_')}_{vectors.split}.parquet"
            predictions[stem] = question_records(questions, scores)
            if kind is QuestionKind.SUMMARY:
                columns |= _summary_columns(vectors, questions, scores)
        shuffled = shuffle_outcome(vectors, [video for video in vectors.reported if video.summary])
        return Outcome(
            rows=[*rows, *shuffled.rows],
            absent=[*absent, *shuffled.absent],
            columns=columns | dict(shuffled.columns),
            predictions=predictions,
        )


def accuracy_row(name: str, scores: dict[str, NDArray[np.float64]], questions: Sequence[Question]) -> MetricRow:
    """Return one accuracy, ours and raw, with its interval and ties in the note."""
    answer_Q = np.array([question.answer for question in questions], dtype=np.int64)
    found = {kind: choice_accuracy(score_QO, answer_Q) for kind, score_QO in scores.items()}
    ours = found[OURS]
    note = f"95 % interval of ours {ours.low:.3f} to {ours.high:.3f}"
    tied = "; ".join(f"{result.num_tied} ties of {kind}" for kind, result in found.items() if result.num_tied)
    return MetricRow(
        name=name,
        ours=ours.accuracy,
        raw=found[RAW].accuracy,
        chance=CHANCE,
        count=ours.num_questions,
        unit="questions",
        headline=True,
        note=f"{note}; {tied}" if tied else note,
    )


def shuffle_outcome(vectors: SplitVectors, videos: Sequence[VideoVectors]) -> Outcome:
    """Return ShuffleMCQ of videos with a summary, beside the same with another video's summary.

    Only the difference is evidence that the text tells the order: some of the accuracy is had by any natural order.
    """
    prefix = f"{vectors.split}/video/shuffle_mcq"
    videos = [video for video in videos if video.shuffled_PE is not None]
    if not videos:
        return Outcome(absent=[Absent(f"{prefix}/*", "no video of the split has a summary")])
    places = [video.segment() for video in videos]
    summaries = [str(video.summary) for video in videos]
    text_QE = unit_rows(vectors.text(OURS, summaries))
    video_QE = unit_rows(vectors.beside_text(OURS, places))
    shuffled_QPE = unit_rows(np.stack([video.shuffled_PE for video in videos if video.shuffled_PE is not None]))
    true_SQO = shuffle_scores(text_QE, video_QE, shuffled_QPE)
    answer_SQ = np.zeros(true_SQO.shape[:2], dtype=np.int64)
    result = shuffle_mcq(true_SQO, answer_SQ)
    credit_Q = shuffle_credit(true_SQO, answer_SQ)
    shared: dict[str, Any] = {"count": len(videos), "unit": "questions"}
    # The mean of the raw clips is the same in any order: five equal options.
    note = f"95 % interval {result.low:.3f} to {result.high:.3f}; {result.num_tied} ties, shared; raw knows no order"
    rows = [MetricRow(name=f"{prefix}/accuracy", ours=result.accuracy, raw=CHANCE, chance=CHANCE, note=note, **shared)]
    columns = {f"{OURS}/video/shuffle_mcq/accuracy": _keyed(videos, credit_Q)}
    columns |= {f"{RAW}/video/shuffle_mcq/accuracy": dict.fromkeys((video.key for video in videos), CHANCE)}
    other_Q = wrong_texts(np.unique(summaries, return_inverse=True)[1])
    if other_Q is None:
        return Outcome(rows=rows, absent=[Absent(f"{prefix}/accuracy_wrong_text", "one summary only")], columns=columns)
    wrong_Q = shuffle_credit(shuffle_scores(text_QE[other_Q], video_QE, shuffled_QPE), answer_SQ)
    gain = paired_bootstrap(credit_Q, wrong_Q, seed=_BOOTSTRAP_SEED)
    rows += [
        MetricRow(
            name=f"{prefix}/accuracy_wrong_text",
            ours=float(wrong_Q.mean()),
            raw=CHANCE,
            chance=CHANCE,
            better="neither",
            note="the control: with the summary of the next video that has another one",
            **shared,
        ),
        MetricRow(
            name=f"{prefix}/true_minus_wrong_text",
            ours=gain.mean,
            raw=0.0,
            chance=0.0,
            headline=True,
            note=f"95 % interval {gain.low:.3f} to {gain.high:.3f}, paired bootstrap",
            **shared,
        ),
    ]
    return Outcome(rows=rows, columns=columns)


def question_records(questions: Sequence[Question], scores: dict[str, NDArray[np.float64]]) -> bytes:
    """Return a parquet row per question: what was asked, the right choice, the choices of ours and raw."""
    rows = [
        {
            "video_id": question.query.video_id,
            "start_s": question.query.span_s[0],
            "end_s": question.query.span_s[1],
            "text": question.query.text,
            "kind": question.kind.name.lower(),
            "answer": question.answer,
        }
        | {f"{kind}.choice": int(score_QO[i].argmax()) for kind, score_QO in scores.items()}
        for i, question in enumerate(questions)
    ]
    buffer = io.BytesIO()
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()


def _scores(
    vectors: SplitVectors, kind: str, questions: Sequence[Question], options: Sequence[Place]
) -> NDArray[np.float64]:
    """(Q, O) cosines of each query with its own options."""
    text_QE = unit_rows(vectors.text(kind, [question.query.text for question in questions]))
    # A place is an option of many questions: its unit vector is made once.
    distinct = list(dict.fromkeys(options))
    unit_NE = unit_rows(vectors.beside_text(kind, distinct))
    number = {place: i for i, place in enumerate(distinct)}
    index_QO = np.array([number[place] for place in options]).reshape(len(questions), NUM_CHOICES)
    of_options = [np.einsum("qe,qe->q", text_QE, unit_NE[index_Q]) for index_Q in index_QO.T]
    return np.stack(of_options, axis=1)


def _clip_rows(vectors: SplitVectors, num_frames: int | None) -> list[ClipRow]:
    """The captions of the split, or its summaries, that have a vector."""
    rows = []
    for video in vectors.reported:
        if num_frames is None:
            told = [(video.segment(), video.summary)] if video.summary else []
        else:
            clips = video.caption_places(num_frames)
            told = [(place, str(caption["text"])) for place, caption in zip(clips, video.captions, strict=True)]
        rows += [ClipRow(video.video_id, place.span_s, str(text)) for place, text in told if vectors.has(place)]
    return rows


def _summary_columns(
    vectors: SplitVectors, questions: Sequence[Question], scores: dict[str, NDArray[np.float64]]
) -> dict[str, dict[str, float]]:
    keys = {video.video_id: video.key for video in vectors.reported}
    answer_Q = np.array([question.answer for question in questions], dtype=np.int64)
    return {
        f"{kind}/video/summary_mcq/accuracy": {
            keys[question.query.video_id]: float(credit)
            for question, credit in zip(questions, question_credit(score_QO, answer_Q), strict=True)
        }
        for kind, score_QO in scores.items()
    }


def _built_name(kind: QuestionKind) -> str:
    return "video/summary_mcq" if kind is QuestionKind.SUMMARY else f"clip/caption_mcq/{kind.name.lower()}"


def _no_questions(vectors: SplitVectors) -> str:
    return f"no question of the file has all its videos among the {len(vectors.reported)} of '{vectors.split}'"


def _keyed(videos: Sequence[VideoVectors], values: NDArray[np.float64]) -> dict[str, float]:
    return {video.key: float(value) for video, value in zip(videos, values, strict=True)}
