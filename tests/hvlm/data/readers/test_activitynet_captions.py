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


def test_sentences_become_captions_and_their_paragraph_the_summary():
    annotations = read("training", v_abcdefghijk=entry())
    video = annotations.videos["v_abcdefghijk"]
    assert (video.subset, video.duration_s) == ("training", 20.0)
    assert video.captions == [
        {"text": "A kite rises.", "segment": [0.5, 6.0]},
        {"text": "It falls again.", "segment": [5.0, 19.5]},
    ]
    assert video.summary == "A kite rises. It falls again."
    assert annotations.problems == []


def test_spans_that_cannot_be_are_listed_and_the_summary_keeps_its_sentences():
    annotations = read(v=entry(timestamps=[[6.0, 0.5], [5.0, 25.0]]))
    assert annotations.videos["v"].captions == [{"text": "It falls again.", "segment": [5.0, 20.0]}]
    assert annotations.videos["v"].summary == "A kite rises. It falls again."
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
