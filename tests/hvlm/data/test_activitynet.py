import json

import pytest

from hvlm.data.activitynet import annotations_json, canonical_id, fit_span, read_annotations, reconcile
from hvlm.errors import UserError


def parse(database, **top):
    return read_annotations(json.dumps({"database": database} | top), origin="gt.json")


def test_the_official_layout_and_our_extension():
    annotations = parse(
        {
            "-JzrTO5oJc4": {
                "subset": "training",
                "duration": 82.7,
                "annotations": [
                    {"label": "Rafting", "segment": [6.7, 36.2]},
                    {"label": "Archery", "label_id": 3, "segment": [1, 2]},
                ],
                "captions": [
                    {"text": "a raft turns", "segment": [6.7, 12.0], "verbs": [4, 1], "nouns": [7]},
                    {"text": "all of it"},
                ],
                "summaries": [
                    {"text": "they set off", "segment": [0, 30], "verbs": [2], "pass": "one", "by": "me"},
                    {"text": "late", "segment": [90, 99], "pass": "one"},
                ],
                "summary": "a group rafts",
                "resolution": "320x240",
            },
            "empty": {},
        },
        version="1.3",
        taxonomy=[],
    )
    video = annotations.videos["-JzrTO5oJc4"]
    assert (video.subset, video.duration_s, video.summary) == ("training", 82.7, "a group rafts")
    assert video.annotations[0] == {"label": "Rafting", "segment": [6.7, 36.2]}
    assert video.annotations[1] == {"label": "Archery", "label_id": 3, "segment": [1.0, 2.0]}
    assert video.captions[0] == {"text": "a raft turns", "segment": [6.7, 12.0], "verbs": [4, 1], "nouns": [7]}
    assert video.captions[1] == {"text": "all of it", "segment": None}
    assert video.summaries == [{"text": "they set off", "segment": [0.0, 30.0], "verbs": [2], "pass": "one"}]
    assert annotations.labels == ["Archery", "Rafting"]
    ((name, problem),) = annotations.problems
    assert name == "-JzrTO5oJc4" and "'late'" in problem and "beyond the duration" in problem
    again = read_annotations(annotations_json(annotations.videos))
    assert again.videos == annotations.videos and again.problems == []


@pytest.mark.parametrize(
    ("video_id", "canonical"),
    [
        ("v_-JzrTO5oJc4", "-JzrTO5oJc4"),
        ("v_abcdefghi", "v_abcdefghi"),
        ("v_v_abcdefghi", "v_abcdefghi"),
        ("v_ab", "v_ab"),
    ],
)
def test_v_is_stripped_only_when_eleven_characters_remain(video_id, canonical):
    assert canonical_id(video_id) == canonical


def test_both_spellings_meet_in_both_directions_and_an_exact_id_wins():
    official = parse({"-JzrTO5oJc4": {"subset": "training"}, "v_abcdefghi": {"subset": "testing"}})
    prefixed = parse({"v_-JzrTO5oJc4": {"subset": "training"}, "v_abcdefghi": {"subset": "testing"}})
    for annotations in (official, prefixed):
        assert annotations.find("-JzrTO5oJc4").subset == annotations.find("v_-JzrTO5oJc4").subset == "training"
        assert annotations.find("v_abcdefghi").subset == annotations.find("v_v_abcdefghi").subset == "testing"
    assert official.find("other") is None


def test_reconcile_lists_both_sides():
    annotations = parse({"-JzrTO5oJc4": {}, "lost": {}})
    result = reconcile(annotations, ["v_-JzrTO5oJc4", "extra"])
    assert result.without_annotation == ["extra"]
    assert result.without_video == ["lost"]


@pytest.mark.parametrize(
    ("segment", "kept", "problem"),
    [
        ([2, 12], [2.0, 10.0], "cut"),
        ([2, 10.01], [2.0, 10.0], None),
        ([10, 12], None, "beyond the duration of 10"),
        ([5, 5], None, "impossible"),
        ([6, 5], None, "impossible"),
        ([-1, 5], None, "impossible"),
    ],
)
def test_impossible_segments_are_listed(segment, kept, problem):
    annotations = parse({"v": {"duration": 10, "annotations": [{"label": "a", "segment": segment}]}})
    assert [item["segment"] for item in annotations.videos["v"].annotations] == ([] if kept is None else [kept])
    assert (problem is None and annotations.problems == []) or problem in annotations.problems[0][1]


def test_a_duration_that_is_no_number_is_ignored_and_listed():
    annotations = parse({"v": {"duration": "long", "annotations": [{"label": "a", "segment": [0, 99]}]}})
    assert annotations.videos["v"].duration_s is None
    assert "'long'" in annotations.problems[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"videos": {}}',
        '{"database": {"v": []}}',
        '{"database": {"v": {"annotations": {}}}}',
        '{"database": {"v": {"annotations": [{"segment": [0, 1]}]}}}',
        '{"database": {"v": {"annotations": [{"label": "a", "segment": [0]}]}}}',
        '{"database": {"v": {"annotations": [{"label": "a"}]}}}',
        '{"database": {"v": {"subset": 3}}}',
        '{"database": {"v": {"captions": [{"text": "a", "verbs": "[4]"}]}}}',
        '{"database": {"v": {"captions": [{"text": "a", "verbs": [true]}]}}}',
        '{"database": {"v": {"captions": [{"text": "a", "nouns": [65536]}]}}}',
        '{"database": {"v": {"captions": [{"text": "a", "nouns": [-1]}]}}}',
        '{"database": {"v": {"captions": [{"text": "a", "pass": 1}]}}}',
        '{"database": {"v": {"summaries": {"text": "a"}}}}',
        '{"database": {"v": {"summaries": ["a"]}}}',
    ],
)
def test_another_layout_is_refused_with_the_file_named(text):
    with pytest.raises(UserError, match=r"^gt\.json"):
        read_annotations(text, origin="gt.json")


@pytest.mark.parametrize(
    ("span", "duration", "fitted", "problem"),
    [
        ((1.0, 2.0), None, (1.0, 2.0), None),
        ((1.0, 2.0), 2.0, (1.0, 2.0), None),
        ((1.0, 2.015), 2.0, (1.0, 2.0), None),
        ((1.0, 2.5), 2.0, (1.0, 2.0), "cut"),
        ((2.0, 2.5), 2.0, None, "starts beyond"),
        ((2.0, 2.0), None, None, "impossible"),
        ((2.0, 1.0), None, None, "impossible"),
        ((-0.1, 1.0), None, None, "impossible"),
    ],
)
def test_a_span_is_kept_cut_or_left_out(span, duration, fitted, problem):
    found, message = fit_span(*span, duration)
    assert found == fitted
    assert (message is None) == (problem is None) and (problem or "") in (message or "")
