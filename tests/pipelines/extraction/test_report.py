"""The printed table shows only what there is."""

import polars as pl

from pipelines.extraction.report import plan_table
from pipelines.store.plan import STATUSES, Plan


def test_statuses_without_videos_are_left_out() -> None:
    counts = {
        "clip": dict.fromkeys(STATUSES, 0) | {"new": 3},
        "c3d": dict.fromkeys(STATUSES, 0) | {"stale": 2, "new": 1},
    }
    table = plan_table(Plan(todo=pl.DataFrame(), status=pl.DataFrame(), counts=counts, num_videos=3, todo_hours=0.0))
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines()[1:]}
    assert rows == {"new": ["3", "1"], "stale": ["0", "2"]}
