"""Who is fitted on, chosen on and reported on."""

import numpy as np
import pytest

from pipelines.evaluation.parts import make_parts, probes_refused
from tests.pipelines.evaluation.made_records import record

ROWS = np.eye(3)


def _records(**counts):
    return [record(f"{split}{i}", ROWS, split=split) for split, count in counts.items() for i in range(count)]


def test_parts_follow_the_splits():
    parts = make_parts(_records(train=5, dev=2, val=3), "val")
    assert (len(parts.train), len(parts.dev), len(parts.report)) == (5, 2, 3)
    assert parts.dev_note == "2 dev videos"


def test_without_dev_a_part_of_train_is_held_out_and_said_so():
    parts = make_parts(_records(train=50, val=3), "val")
    assert {video.split for video in parts.dev} == {"train"}
    assert 3 <= len(parts.dev) <= 20
    assert not {video.key for video in parts.dev} & {video.key for video in parts.train}
    assert len(parts.dev) + len(parts.train) == 50
    assert "held out of train" in parts.dev_note
    again = make_parts(_records(train=50, val=3)[::-1], "val")
    assert {video.key for video in again.dev} == {video.key for video in parts.dev}


def test_without_train_there_is_nothing_to_fit():
    parts = make_parts(_records(val=3), "val")
    assert (parts.train, parts.dev) == ([], [])


@pytest.mark.parametrize(("split", "why"), [("train", "fitted on"), ("dev", "chosen on")])
def test_probes_are_not_reported_on_the_videos_that_made_them(split, why):
    parts = make_parts(_records(train=5, dev=2, val=3), split)
    assert why in probes_refused(parts)


def test_probes_are_reported_on_held_out_videos_and_need_some_to_learn_from():
    assert probes_refused(make_parts(_records(train=5, dev=2, val=3), "val")) == ""
    assert "0 and 0" in probes_refused(make_parts(_records(val=3), "val"))
