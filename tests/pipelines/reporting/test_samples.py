"""Per-sample values by hand: who counts for a metric and with what."""

import polars as pl

from pipelines.reporting.samples import num_candidates, ranks, sample_values

FRAME = pl.DataFrame(
    {
        "key": ["a", "b", "c"],
        "labels": [["spin", "blink"], [], ["blink"]],
        "activity": ["x", "y", None],
        "summary": [" one", "one", None],
        "ours.top_labels": ["blink", "blink", "spin"],
        "ours.top_activity": ["x", "x", "x"],
        "ours.text_to_video_rank": [1, 6, None],
        "raw.text_to_video_rank": [11, 1, None],
        "ours.temporal_consistency": [0.5, None, 0.25],
        "raw/video/summary_mcq/accuracy": [1.0, None, 0.0],
    }
)


def test_values_by_hand():
    values = sample_values(FRAME, "val")
    assert values["val/video/linear_probe/labels/hit_at_1"] == {"ours": {"a": 1.0, "c": 0.0}}  # b has no label
    assert values["val/video/linear_probe/activity/hit_at_1"] == {"ours": {"a": 1.0, "b": 0.0}}
    assert values["val/video/text_to_video/recall_at_1"] == {"ours": {"a": 1.0, "b": 0.0}, "raw": {"a": 0.0, "b": 1.0}}
    assert values["val/video/text_to_video/recall_at_5"]["ours"] == {"a": 1.0, "b": 0.0}
    assert values["val/video/text_to_video/recall_at_10"] == {"ours": {"a": 1.0, "b": 1.0}, "raw": {"a": 0.0, "b": 1.0}}
    assert values["val/frame/temporal_consistency"] == {"ours": {"a": 0.5, "c": 0.25}}
    assert values["val/video/summary_mcq/accuracy"] == {"raw": {"a": 1.0, "c": 0.0}}
    assert not any("video_to_text" in name for name in values)


def test_ranks_and_candidates():
    assert ranks(FRAME, "ours", "text_to_video") == [1, 6]
    assert ranks(FRAME, "ours", "video_to_text") == []
    assert num_candidates(FRAME, "text_to_video") == 2  # two videos with a summary,
    assert num_candidates(FRAME, "video_to_text") == 1  # which say the same
