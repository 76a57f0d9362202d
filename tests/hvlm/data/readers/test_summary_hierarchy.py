import json

import pytest

from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.summary_hierarchy import read_summary_hierarchy
from hvlm.errors import UserError

COOKS = ClipRow("v-1", (0.0, 300.0), "C cooks", annotator="pass_1", duration_s=300.0)


def entry(**changes):
    return {
        "summary_start": 0.0,
        "summary_end": 300.0,
        "clip_start": [2.5, 9.0],
        "clip_end": [3.5, 12.0],
        "clip_text": ["#C C cuts an onion", "#C C stirs"],
        "tag_verb": ["[93]", "[]"],
        "tag_noun": ["[192, 12]", ""],
    } | changes


def read(*summaries, **entries):
    return read_summary_hierarchy(json.dumps(entries), summaries, "hierarchy.json")


def test_clips_take_the_video_of_their_summary_and_no_pass():
    found = read(COOKS, ClipRow("v-2", (0.0, 300.0), "C eats"), **{"C cooks": entry()})
    assert found.rows == [
        ClipRow("v-1", (2.5, 3.5), "#C C cuts an onion", (93,), (192, 12), duration_s=300.0),
        ClipRow("v-1", (9.0, 12.0), "#C C stirs", duration_s=300.0),
    ]
    assert found.problems == []


def test_a_clip_of_two_summaries_comes_once():
    start = COOKS._replace(text="C begins", span_s=(0.0, 10.0))
    inside = entry(**{name: values[:1] for name, values in entry().items() if isinstance(values, list)})
    found = read(COOKS, start, **{"C cooks": entry(), "C begins": inside | {"summary_end": 10.0}})
    assert [row.text for row in found.rows] == ["#C C cuts an onion", "#C C stirs"]


def test_equal_sentences_are_told_apart_by_their_segment_or_listed():
    later = COOKS._replace(video_id="v-2", span_s=(50.0, 300.0))
    assert {row.video_id for row in read(COOKS, later, **{"C cooks": entry()}).rows} == {"v-1"}
    for others, videos in (([COOKS._replace(video_id="v-2")], "v-1, v-2"), ([], "v-1")):
        found = read(COOKS, *others, COOKS._replace(annotator="pass_2"), **{"C cooks": entry()})
        assert bool(found.rows) == (videos == "v-1")
        assert [problem.video_id for problem in found.problems] == ([] if videos == "v-1" else [videos])
    missing = read(COOKS, **{"C sleeps": entry(), "C cooks": entry(summary_start=7.0)})
    assert missing.rows == [] and [problem.where for problem in missing.problems] == [
        "hierarchy.json, 'C sleeps'",
        "hierarchy.json, 'C cooks'",
    ]
    assert "2 clips of a summary that the table has of 0 videos: left out" in missing.problems[0].message


def test_a_summary_that_was_cut_to_its_video_is_found_and_impossible_clips_are_listed():
    found = read(COOKS, **{"C cooks": entry(summary_end=301.0, clip_start=[5.0, 299.0], clip_end=[3.5, 302.0])})
    assert [row.span_s for row in found.rows] == [(299.0, 300.0)]
    assert [problem.where for problem in found.problems] == [
        f"hierarchy.json, 'C cooks', clip {index}" for index in (0, 1)
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        entry(clip_start=[2.5]),
        entry(clip_text="#C C stirs"),
        entry(tag_verb=None),
        entry(summary_end="late"),
        entry(tag_verb=["exit()", "[]"]),
    ],
)
def test_another_layout_is_refused_with_the_sentence_named(wrong):
    with pytest.raises(UserError, match=r"^hierarchy\.json, 'C cooks'"):
        read(COOKS, **{"C cooks": wrong})
