"""The printed table shows only what there is."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl

from pipelines.extraction.report import extraction_report, plan_table
from pipelines.extraction.run import ExtractReport
from pipelines.store.plan import STATUSES, Plan
from pipelines.store.snapshot import SnapshotSummary
from pipelines.store.sources import SourceConfig, list_source
from tests.pipelines.store.world import World


def test_statuses_without_videos_are_left_out() -> None:
    counts = {
        "clip": dict.fromkeys(STATUSES, 0) | {"new": 3},
        "c3d": dict.fromkeys(STATUSES, 0) | {"stale": 2, "new": 1},
    }
    table = plan_table(Plan(todo=pl.DataFrame(), status=pl.DataFrame(), counts=counts, num_videos=3))
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines()[1:]}
    assert rows == {"new": ["3", "1"], "stale": ["0", "2"]}


def test_the_report_says_what_was_odd_about_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    lines = ["a,a.mp4,one", "a,a.mp4,one", "a,a.mp4,two", "a,a.mp4,two", "a,a.mp4,"]
    (tmp_path / "list.csv").write_text("\n".join(["video_id,uri,caption", *lines]), encoding="utf-8")
    segments = [{"label": "l", "segment": [29.0 + index, 40.0]} for index in range(7)]
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"a": {"annotations": segments}}}), encoding="utf-8")
    world = World(tmp_path / "store")
    world.add("a", annotations=segments)
    world.snapshot()
    source = SourceConfig(uri=str(tmp_path / "list.csv"), annotations_uri=str(tmp_path / "gt.json"))
    snapshot = SnapshotSummary(
        new=1, changed=0, renamed=0, unchanged=0, tombstoned=0, relabelled=0, failed=0, rejected=0
    )
    report = ExtractReport(listing=list_source(source), snapshot=snapshot, plan=world.plan(), published=world.publish())
    text = extraction_report(str(tmp_path / "store"), report)
    assert "calls failed" not in text
    again = extraction_report(str(tmp_path / "store"), replace(report, num_retries=3))
    assert "  storage    3 calls failed for the moment and were made again" in again
    assert "  equal      2 lines of the list repeat another" in text
    assert "  captions   2 lines of the list" in text
    assert "  segments   7 annotated segments" in text and "             and 2 more" in text
    assert "a: segment [29, 40] of a video of 30.00 s: cut" in text
    assert "a: segment [30, 40] of a video of 30.00 s: left out" in text
