"""What a report says of odd things: counted whole, listed in part."""

import json

from pipelines.store.findings import listed, listing_findings
from pipelines.store.sources import SourceConfig, list_source


def test_a_long_list_is_cut_and_the_rest_is_counted():
    assert listed("missing", "videos", [], 2) == []
    assert [line.split() for line in listed("missing", "videos", ["a", "b", "c"], 2)] == [
        ["missing", "3", "videos:"],
        ["a"],
        ["b"],
        ["and", "1", "more"],
    ]


def test_annotations_that_do_not_fit_the_videos_are_said(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    wrong = {"duration": 10.0, "subset": "training", "annotations": [{"label": "l", "segment": [20.0, 30.0]}]}
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"a": wrong, "lost": {}}}), encoding="utf-8")
    text = "\n".join(
        listing_findings(list_source(SourceConfig(uri=str(tmp_path), annotations_uri=str(tmp_path / "gt.json"))), 5)
    )
    assert "1 videos have no annotation:\n             b" in text
    assert "1 annotated videos are not in the source:\n             lost" in text
    assert "1 impossible rows:\n             a: " in text
