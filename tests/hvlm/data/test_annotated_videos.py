import pytest

from hvlm.data.activitynet import VideoAnnotation
from hvlm.data.annotated_videos import annotated_videos, bare_summaries, merge_videos
from hvlm.data.readers.egoclip import ClipRow
from hvlm.errors import UserError

CUTS = ClipRow("a", (1.0, 2.0), "C cuts", (4,), (1, 2), "one", 1.5, 60.0)
STIRS = ClipRow("a", (5.0, 9.0), "C stirs", annotator="two", duration_s=60.0)
COOKS = ClipRow("a", (0.0, 30.0), "C cooks", annotator="one", duration_s=60.0)


def test_clips_are_captions_and_summaries_tell_of_parts():
    videos = annotated_videos([STIRS, CUTS], [COOKS, COOKS._replace(video_id="b", annotator=None)], "training")
    assert videos["a"] == VideoAnnotation(
        subset="training",
        duration_s=60.0,
        captions=[
            {"text": "C stirs", "segment": [5.0, 9.0], "pass": "two"},
            {"text": "C cuts", "segment": [1.0, 2.0], "verbs": [4], "nouns": [1, 2], "pass": "one"},
        ],
        summaries=[{"text": "C cooks", "segment": [0.0, 30.0], "pass": "one"}],
    )
    assert videos["b"].summaries == [{"text": "C cooks", "segment": [0.0, 30.0]}] and not videos["b"].captions


def test_parts_of_one_subset_add_up_and_equal_texts_count_once():
    one, two = annotated_videos([CUTS], [COOKS]), annotated_videos([CUTS, STIRS], [COOKS])
    merged = merge_videos([one, two, annotated_videos([CUTS._replace(video_id="b")], [])])
    assert [item["text"] for item in merged["a"].captions] == ["C cuts", "C stirs"]
    assert len(merged["a"].summaries) == 1 and set(merged) == {"a", "b"}
    assert len(one["a"].captions) == 1


@pytest.mark.parametrize("other", ["v_abcdefghijk", "abcdefghijk"])
def test_a_video_of_two_subsets_is_refused_under_either_spelling_of_its_id(other):
    parts = [
        annotated_videos([CUTS._replace(video_id=video)], [], subset)
        for video, subset in ((other, "training"), ("b", "testing"), ("v_abcdefghijk", "validation"))
    ]
    with pytest.raises(UserError, match="the training and the validation rows: got 1: abcdefghijk"):
        merge_videos(parts)
    assert len(merge_videos(parts[:2])) == 2


def test_a_summary_whose_pass_has_no_caption_inside_is_bare():
    rows = [COOKS, COOKS._replace(span_s=(1.5, 30.0), text="late"), COOKS._replace(annotator=None, text="anyone")]
    assert bare_summaries(annotated_videos([CUTS, STIRS], rows)) == ["a: 'late' (one)", "a: 'anyone' (no pass)"]
