"""Anticipation on planted actions: what is seen tells what comes; a submission in its form; missing videos."""

import json

import numpy as np

from hvlm.data.readers.anticipation import TimedAction, anticipation_samples
from hvlm.metrics.anticipation_head import AnticipationHeadConfig
from pipelines.evaluation.hiervl.anticipation_group import AnticipationGroup
from pipelines.evaluation.hiervl.places import Place
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video

NUM_VIDEOS, NUM_ACTIONS = {"train": 30, "val": 6}, 4


def _actions(split):
    """Action i of video n is (n + i) modulo 4, so the first action tells the others; its clip shows it."""
    return [
        TimedAction(f"{split}{n}", f"{split}{n}", i, (2.0 * i, 2.0 * i + 1), (n + i) % 4, (n + i) % 4)
        for n in range(NUM_VIDEOS[split])
        for i in range(NUM_ACTIONS)
    ]


def _videos(split):
    for n in range(NUM_VIDEOS[split]):
        name = f"{split}{n}"
        clips = {Place(name, 2.0 * i, 2.0 * i + 1, 2): np.eye(4)[(n + i) % 4] for i in range(NUM_ACTIONS)}
        yield video(name, clips, split=split, raw={place: np.ones(4) for place in clips})


def _group(**changes):
    values = {
        "train": anticipation_samples(_actions("train"), 1, 3),
        "test": anticipation_samples(_actions("val"), 1, 3),
        "head": AnticipationHeadConfig(num_steps=300, lr=0.1, weight_decay=0.0),
        "num_sequences": 2,
        "num_frames": 2,
        "seed": 0,
    }
    return AnticipationGroup(**(values | changes))


def test_what_is_seen_tells_what_comes():
    outcome = _group().measure(split_vectors([*_videos("train"), *_videos("val")], {}, 4))
    found = {row.name.rsplit("/", 1)[1]: row for row in outcome.rows}
    assert found.keys() == {"verb", "noun", "action"}
    action = found["action"]
    assert action.name == "val/clip/anticipation/edit_distance_at_3/action"
    assert action.ours < 0.2 < 0.5 < action.floor and action.raw > 0.5 and action.chance > 0.5  # raw shows nothing
    assert (action.better, action.count) == ("lower", 6)
    submission = json.loads(outcome.predictions["predictions_anticipation_val.json"])
    assert submission["val1_0"]["verb"][0] == [2, 3, 0] and len(submission["val1_0"]["noun"]) == 2


def test_the_floor_is_how_often_each_label_follows_in_train():
    # Every fourth video begins alike: what follows there is always the same, and drawing from it is never wrong.
    first = {f"{split}{n}" for split, number in NUM_VIDEOS.items() for n in range(0, number, 4)}
    alike = {
        split: anticipation_samples([action for action in _actions(split) if action.video_id in first], 1, 3)
        for split in NUM_VIDEOS
    }
    outcome = _group(train=alike["train"], test=alike["val"]).measure(
        split_vectors([*_videos("train"), *_videos("val")], {}, 4)
    )
    assert [row.floor for row in outcome.rows] == [0.0, 0.0, 0.0] and all(row.chance > 0.2 for row in outcome.rows)


def test_missing_videos_and_no_figures_of_what_was_learnt():
    videos = [*_videos("train"), *_videos("val")][:-1]
    outcome = _group().measure(split_vectors(videos, {}, 4))
    assert outcome.missing == {"val5": 1} and outcome.rows[0].count == 5
    vectors = split_vectors(videos, {}, 4)
    learnt = _group().measure(type(vectors)("train", videos, vectors.texts, vectors.clip_columns))
    assert not learnt.rows and "train" in learnt.absent[0].why
    nothing = _group(train=[]).measure(vectors)
    assert "0 samples of the training table" in nothing.absent[0].why
