import json

import pytest

from hvlm.data.activitynet import reconcile
from hvlm.data.readers.activitynet_captions import read_activitynet_captions
from hvlm.errors import UserError


def entry(**changes):
    return {
        "duration": 20.0,
        "timestamps": [[0.5, 6.0], [5.0, 19.5]],
        "sentences": ["A kite rises.", "  It falls again. "],
    } | changes


def read(subset=None, **videos):
    return read_activitynet_captions(json.dumps(videos), subset, "train.json")


def test_sentences_become_captions_and_their_paragraph_is_no_summary_of_its_own():
    """A training that took it for one would contrast it with the very sentences that it is made of."""
    annotations = read("training", v_abcdefghijk=entry())
    video = annotations.videos["v_abcdefghijk"]
    assert (video.subset, video.duration_s) == ("training", 20.0)
    assert video.captions == [
        {"text": "A kite rises.", "segment": [0.5, 6.0]},
        {"text": "It falls again.", "segment": [5.0, 19.5]},
    ]
    assert video.summary is None and video.summaries == []
    assert annotations.problems == []


def test_the_annotators_of_a_file_are_the_pass_of_its_captions():
    annotations = read_activitynet_captions(json.dumps({"v": entry()}), pass_id="val_2")
    assert [caption["pass"] for caption in annotations.videos["v"].captions] == ["val_2", "val_2"]


def test_spans_that_cannot_be_are_listed():
    annotations = read(v=entry(timestamps=[[6.0, 0.5], [5.0, 25.0]]))
    assert annotations.videos["v"].captions == [{"text": "It falls again.", "segment": [5.0, 20.0]}]
    assert [video_id for video_id, _ in annotations.problems] == ["v", "v"]
    assert "impossible" in annotations.problems[0][1] and "cut" in annotations.problems[1][1]


def test_ids_meet_with_and_without_v_and_missing_videos_are_listed():
    annotations = read(v_abcdefghijk=entry(), v_ABCDEFGHIJK=entry())
    found = reconcile(annotations, ["abcdefghijk", "other"])
    assert (found.without_annotation, found.without_video) == (["other"], ["v_ABCDEFGHIJK"])


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        entry(timestamps=[[0.5, 6.0]]),
        entry(sentences=None),
        entry(sentences=["A kite rises.", " "]),
        entry(timestamps=[[0.5, 6.0], None]),
        entry(timestamps=[[0.5, 6.0], [5.0]]),
    ],
)
def test_another_layout_is_refused_with_the_video_named(wrong):
    with pytest.raises(UserError, match=r"^train\.json, video 'v'"):
        read(v=wrong)
