"""Work rows: one per video, several for a long one, the longest first."""

import polars as pl
import pyarrow as pa

from pipelines.extraction.work import MAX_BLOCK_ROWS, work_blocks, work_table


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


def test_spans_travel_where_the_metadata_does() -> None:
    text = '{"annotations":[{"label":"a","segment":[1,3]}],"captions":[{"text":"b","segment":[2.0,4.0]}]}'
    plain = todo({"a": 5.0})
    assert work_table(plain, 60.0).to_pylist()[0]["spans_s"] is None
    with_text = work_table(plain.with_columns(metadata_json=pl.lit(text)), 60.0)
    assert with_text.to_pylist()[0]["spans_s"] == [[1.0, 4.0]]


def test_order_does_not_depend_on_the_order_of_the_plan() -> None:
    forward = work_table(todo({"a": 5.0, "b": 5.0, "c": 7.0}), segment_s=60.0)
    backward = work_table(todo({"c": 7.0, "b": 5.0, "a": 5.0}), segment_s=60.0)
    assert forward == backward


def test_blocks_hold_like_amounts_of_video_and_every_row_once() -> None:
    work = work_table(todo({f"{i:03d}": 10.0 for i in range(320)} | {"long": 960.0}), segment_s=60.0)
    blocks = work_blocks(work, num_cpus=2.0)
    assert pa.concat_tables(blocks) == work
    assert blocks[0].num_rows == 1  # 480 s of the long video weigh more than a block's share
    assert {block.num_rows for block in blocks[2:-1]} == {26}


def test_few_videos_and_unknown_lengths_get_a_task_each() -> None:
    assert [b.num_rows for b in work_blocks(work_table(todo({"a": 5.0, "b": 5.0}), 60.0), 4.0)] == [1, 1]
    assert [b.num_rows for b in work_blocks(work_table(todo({"a": None, "b": None}), 60.0), 4.0)] == [1, 1]


def test_a_block_is_limited_in_rows_and_seconds() -> None:
    many = work_blocks(work_table(todo({f"{i:04d}": 1.0 for i in range(4000)}), 60.0), 1.0)
    assert max(block.num_rows for block in many) == MAX_BLOCK_ROWS
    long = work_blocks(work_table(todo({f"{i:04d}": 400.0 for i in range(400)}), 60.0), 1.0)
    assert {block.num_rows for block in long} == {5}
