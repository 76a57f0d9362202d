import json
from typing import Any

import pytest

from hvlm.data.readers.anticipation import TimedAction, anticipation_samples, read_actions
from hvlm.errors import UserError


def entry(index: int, clip: str = "c", start_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    return {
        "video_uid": "v",
        "clip_uid": clip,
        "action_idx": index,
        "clip_parent_start_sec": 30.0,
        "action_clip_start_sec": start_s,
        "action_clip_end_sec": 2.0,
        "verb_label": index,
        "noun_label": 7,
    } | changes


def file(*entries: dict[str, Any]) -> str:
    return json.dumps({"version": "v1", "clips": list(entries)})


def test_times_count_from_the_start_of_the_clip_in_its_video() -> None:
    read = read_actions(file(entry(3, start_s=1.5)))
    assert read.rows == [TimedAction("v", "c", 3, (31.5, 32.0), 3, 7)]


def test_samples_are_runs_without_a_gap() -> None:
    read = read_actions(file(entry(2), entry(0), entry(1), entry(4), entry(0, clip="d")))
    samples = anticipation_samples(read.rows, 1, 2)
    assert [sample.name for sample in samples] == ["c_0"]
    assert [action.number for action in samples[0].future] == [1, 2]
    assert [sample.name for sample in anticipation_samples(read.rows, 1, 1)] == ["c_0", "c_1"]


def test_a_span_that_cannot_be_is_listed_and_makes_a_gap() -> None:
    read = read_actions(file(entry(0), entry(1, start_s=5.0), entry(2)))
    assert [problem.video_id for problem in read.problems] == ["v"]
    assert anticipation_samples(read.rows, 1, 1) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a list of actions"),
        (json.dumps({"clips": [{"video_uid": "v"}]}), "the keys"),
        (file(entry(0, verb_label=-1)), "verb_label"),
        (file(entry(0), entry(0)), "again"),
    ],
)
def test_other_shapes_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_actions(text)
