"""Work rows: one per video, several for a long one, the longest first."""

import polars as pl

from pipelines.extraction.work import rows_per_block, work_table


def todo(durations: dict[str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "video_id": list(durations),
            "key": list(durations),
            "uri": [f"/v/{name}.mp4" for name in durations],
            "content_hash": ["h"] * len(durations),
            "duration_s": list(durations.values()),
            "needs": [[{"encoder": "clip", "staged_segments": [0]}]] * len(durations),
        }
    )


def test_long_videos_come_first_and_in_parts() -> None:
    rows = work_table(todo({"short": 10.0, "long": 3600.0, "unknown": None}), segment_s=60.0).to_pylist()
    assert [row["video_id"] for row in rows] == ["long"] * 8 + ["short", "unknown"]
    assert [(row["part"], row["num_parts"]) for row in rows[:8]] == [(part, 8) for part in range(8)]
    assert rows[0]["needs"] == [{"encoder": "clip", "staged_segments": [0]}]


def test_order_does_not_depend_on_the_order_of_the_plan() -> None:
    forward = work_table(todo({"a": 5.0, "b": 5.0, "c": 7.0}), segment_s=60.0)
    backward = work_table(todo({"c": 7.0, "b": 5.0, "a": 5.0}), segment_s=60.0)
    assert forward == backward


def test_few_videos_get_a_task_each_and_many_share_one() -> None:
    assert rows_per_block(10, 2) == 1
    assert rows_per_block(64, 2) == 4
    assert rows_per_block(1_000_000, 100) == 16
