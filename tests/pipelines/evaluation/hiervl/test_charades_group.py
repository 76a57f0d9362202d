"""Charades by hand: zero-shot by the names of classes, a head that learns, missing videos."""

import math

import numpy as np
import pytest

from hvlm.data.readers.charades import CharadesClip, CharadesVideo
from hvlm.metrics.text_head import TextHeadConfig
from pipelines.evaluation.hiervl.charades_group import CharadesGroup
from pipelines.evaluation.hiervl.places import Place
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video

EYE = np.eye(3)
TEXTS = {f"text {i}": EYE[i] for i in range(3)}


def _charades(vectors, labels, train=()):
    """`train`: (vector, class) of clips of the train split."""
    videos = [video(name, {Place(name, 0.0, math.inf, 16): vector}) for name, vector in vectors.items()]
    for i, (vector, _) in enumerate(train):
        videos.append(video(f"t{i}", {Place(f"t{i}", 0.0, 2.0, 16): vector}, split="train"))
    group = CharadesGroup(
        videos=[CharadesVideo(name, of_video, (), None) for name, of_video in labels.items()],
        class_names=["text 0", "text 1", "text 2"],
        train=[CharadesClip(f"t{i}", label, (0.0, 2.0), "") for i, (_, label) in enumerate(train)],
        head=TextHeadConfig(num_steps=200, lr=1e-2),
        num_frames=16,
        seed=0,
    )
    return group.measure(split_vectors(videos, TEXTS, 3))


def test_charades_ranks_videos_by_the_names_of_classes():
    vectors = {"a": EYE[0], "b": EYE[1]}
    outcome = _charades(vectors, {"a": (0,), "b": (1,), "gone": (2,)})
    (row,) = outcome.rows
    assert (row.name, row.ours, row.count) == ("val/video/charades/zero_shot/mean_ap", 1.0, 2)
    assert "1 of 3 classes" in row.note and outcome.missing == {"gone": 1}
    assert outcome.per_class_ap["charades/zero_shot"]["ours"] == {"text 0": 1.0, "text 1": 1.0, "text 2": None}
    assert _charades(vectors, {"a": (1,), "b": (0,)}).rows[0].ours == pytest.approx(0.5)  # the right one stands second


def test_a_head_learns_what_zero_shot_has_wrong():
    """Every clip and video lies at the name of another class."""
    vectors, labels = {"a": EYE[1], "b": EYE[0]}, {"a": (0,), "b": (1,)}
    outcome = _charades(vectors, labels, [(EYE[1], 0), (EYE[0], 1)] * 5)
    found = {row.name.split("/")[3]: row for row in outcome.rows}
    assert found["zero_shot"].ours == pytest.approx(0.5)
    assert found["small_head"].ours == found["small_head"].raw == 1.0
    assert "fitted on 10 clips" in found["small_head"].note
    assert "no clip of the store" in _charades(vectors, labels).absent[0].why


def test_charades_without_labels():
    assert "no labelled video" in _charades({"a": EYE[0]}, {"a": ()}).absent[0].why
