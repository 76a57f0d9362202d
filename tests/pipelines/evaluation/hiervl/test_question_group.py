"""Questions by hand: hits, missing videos, predictions in the file's own form, ShuffleMCQ with its control."""

import io
import json

import numpy as np
import polars as pl
import pytest

from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import Question, QuestionKind, read_questions
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.question_group import QuestionFileGroup, StoreQuestionGroup
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video

IDS = ("a", "b", "c", "d", "e")
EYE = np.eye(5)
CAPTION = (0.0, 2.0)


def _videos(**changes):
    """Clip and whole video of number i have the unit vector i."""
    return [
        video(
            name,
            {Place(name, *CAPTION, 4): EYE[i], Place(name, 0.0, 10.0): EYE[i]},
            captions=[{"text": f"caption {name}", "segment": CAPTION}],
            summary=f"summary {name}",
            shuffled_PE=np.zeros((20, 5), np.float32),
            **changes,
        )
        for i, name in enumerate(IDS)
    ]


TEXTS = {f"{level} {name}": EYE[i] for i, name in enumerate(IDS) for level in ("caption", "summary")}
TEXTS["caption b"] = EYE[0]  # b is told as a is


def _question(name, kind=QuestionKind.INTER):
    rows = [ClipRow(each, CAPTION if kind != QuestionKind.SUMMARY else (0.0, 10.0), f"caption {each}") for each in IDS]
    return Question(rows[IDS.index(name)], tuple(rows), IDS.index(name), kind)


def _group(*questions):
    return QuestionFileGroup("ego_mcq", "EgoMCQ", questions, 4)


def test_accuracy_by_kind_and_predictions_as_the_file_has_them():
    questions = [_question("a"), _question("b"), _question("c", QuestionKind.INTRA)]
    outcome = _group(*questions).measure(split_vectors(_videos(), TEXTS, 5))
    found = {row.name: (row.ours, row.raw, row.chance, row.count) for row in outcome.rows}
    assert found == {
        "val/clip/ego_mcq/inter/accuracy": (0.5, 0.5, 0.2, 2),
        "val/clip/ego_mcq/intra/accuracy": (1.0, 1.0, 0.2, 1),
    }
    predicted = read_questions(outcome.predictions["predictions_ego_mcq_val.json"].decode()).rows
    assert [question.answer for question in predicted] == [0, 0, 2]
    assert [question.query for question in predicted] == [question.query for question in questions]
    records = pl.read_parquet(io.BytesIO(outcome.predictions["questions_ego_mcq_val.parquet"]))
    assert records["answer"].to_list() == [0, 1, 2] and records["ours.choice"].to_list() == [0, 0, 2]


def test_segments_are_asked_for_summaries():
    group = _group(_question("a", QuestionKind.SUMMARY))
    assert next(iter(group.places())) == Place("a", 0.0, 10.0)
    assert next(iter(_group(_question("a")).places())) == Place("a", *CAPTION, 4)
    outcome = group.measure(split_vectors(_videos(), TEXTS, 5))
    assert [row.name for row in outcome.rows] == ["val/video/ego_mcq/accuracy"]


def test_missing_videos_are_listed_and_those_of_other_splits_are_missing():
    videos = _videos()
    outcome = _group(_question("a"), _question("c")).measure(split_vectors(videos[:4], TEXTS, 5))
    assert (outcome.missing, list(outcome.rows)) == ({"e": 2}, [])
    assert "no question of the file" in outcome.absent[0].why
    of_train = [*videos[:4], *_videos(split="train")[4:]]
    assert _group(_question("a")).measure(split_vectors(of_train, TEXTS, 5)).missing == {"e": 1}


def test_a_choice_without_rows_leaves_its_question_out():
    videos = [*_videos()[:4], video("e", {})]
    outcome = _group(_question("a")).measure(split_vectors(videos, TEXTS, 5))
    assert outcome.missing == {} and "1 questions have a choice without" in outcome.absent[0].why


def test_questions_of_the_store_and_the_shuffled_order():
    outcome = StoreQuestionGroup(4).measure(split_vectors(_videos(), TEXTS, 5))
    found = {row.name: row for row in outcome.rows}
    assert found["val/clip/caption_mcq/inter/accuracy"].ours == 0.8  # b is taken for a
    assert found["val/video/summary_mcq/accuracy"].ours == 1.0
    assert "val/clip/caption_mcq/intra/accuracy" in outcome.absent[0].metrics  # one caption per video
    shuffle = {name.rsplit("/", 1)[1]: row for name, row in found.items() if "shuffle" in name}
    assert shuffle["accuracy"].ours == 1.0
    assert shuffle["accuracy_wrong_text"].ours == pytest.approx(0.2)
    assert shuffle["true_minus_wrong_text"].ours == pytest.approx(0.8)
    assert shuffle["accuracy"].raw == shuffle["accuracy"].chance == 0.2
    assert outcome.columns["ours/video/summary_mcq/accuracy"] == {f"key-{name}": 1.0 for name in IDS}
    assert outcome.columns["ours/video/shuffle_mcq/accuracy"]["key-a"] == 1.0


def test_nothing_to_ask_is_said():
    outcome = StoreQuestionGroup(4).measure(split_vectors([], {}, 5))
    assert len(outcome.absent) == 4 and not outcome.rows


def test_predictions_are_json():
    outcome = _group(_question("a")).measure(split_vectors(_videos(), TEXTS, 5))
    assert json.loads(outcome.predictions["predictions_ego_mcq_val.json"])["0"]["types"] == 1
