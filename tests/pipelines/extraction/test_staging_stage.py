"""The staging stage: features land in one tar, failures pass, each as an outcome."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from hvlm.data.keys import video_key
from infra import retries
from pipelines.extraction.columns import COUNTS, ERROR, RowTiming, column, row_table
from pipelines.extraction.ledger import StageCount, counts_from_json, counts_to_json
from pipelines.extraction.staging_stage import StagedEncoder, Stager
from pipelines.store.staging import read_segment

ENCODED = {"decode": StageCount(), "encode:e": StageCount(1, 1), "stage": StageCount(1, 1)}
NOTHING = {name: StageCount() for name in ENCODED}


def counts(outcomes: pa.Table) -> dict[str, StageCount]:
    return counts_from_json(outcomes.column("counts")[0].as_py())


def test_rows_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    encoders = {name: StagedEncoder(fingerprint="f", layout="l", dim=1) for name in ("e", "f")}
    stager = Stager(store_uri=str(tmp_path), run_id="r", encoders=encoders)
    failed = {ERROR: json.dumps({"stage": "encode:e", "reason": "encoder_error", "message": "m", "permanent": True})}
    # e failed, and so f was not asked; f failed after e, whose features go no further; counts of a work row alone.
    first = {column("e", "timing"): "{}", column("f", "timing"): "{}"}
    later = failed | {ERROR: failed[ERROR].replace(":e", ":f")} | {column("e", "features"): np.ones(1, np.float16)}
    alone = {"video_id": "v", COUNTS: counts_to_json({"decode": StageCount(6, 4, 2)})}
    outcomes = stager(pa.concat_tables([row_table(["e", "f"], row) for row in (first | failed, first | later, alone)]))
    assert counts(outcomes) == {
        "decode": StageCount(6, 4, 2),
        "encode:e": StageCount(2, 1, 0, 1),
        "encode:f": StageCount(2, 0, 1, 1),
        "stage": StageCount(1, 0, 1),
    }
    only = stager(row_table(["e", "f"], alone))
    assert only.column("kind").to_pylist() == ["counted"] and counts(only)["decode"] == StageCount(6, 4, 2)


def test_outcomes_name_what_was_written(tmp_path: Path) -> None:
    stager = Stager(
        store_uri=str(tmp_path), run_id="r", encoders={"e": StagedEncoder(fingerprint="f", layout="l", dim=3)}
    )
    features = np.arange(6, dtype=np.float16).reshape(2, 3)
    timing = RowTiming(row_start=4, num_rows=2, fps=2.0, stride_s=0.5, clip_s=0.5, offset_s=0.0)
    good = row_table(
        ["e"],
        {
            "video_id": "a b",
            "key": video_key("a b"),
            "content_hash": "h",
            "segment_index": 1,
            "num_segments": 2,
            "duration_s": 3.0,
            "num_frames_decoded": 7,
            "num_retries": 2,
            column("e", "features"): features,
            column("e", "times"): np.array([2.0, 2.5]),
            column("e", "timing"): timing.to_json(),
        },
    )
    failure = {"stage": "decode", "reason": "truncated", "message": "m", "permanent": True}
    bad = row_table(["e"], {"video_id": "c", "key": "c", "content_hash": "h", ERROR: json.dumps(failure)})
    assert counts(stager(bad)) == NOTHING and counts(stager(good)) == ENCODED
    retries.take()
    retries.add(1)  # of the stage itself
    outcomes = stager(pa.concat_tables([good, bad])).to_pylist()
    assert outcomes[1]["counts"] is None
    assert [outcome["num_retries"] for outcome in outcomes] == [3, 0]
    assert [outcome["kind"] for outcome in outcomes] == ["staged", "failed"]
    assert sum(outcome["num_frames"] for outcome in outcomes) == 7
    row = json.loads(outcomes[0]["row"])
    assert (row["video_id"], row["segment_index"], row["row_start"], row["num_rows"]) == ("a b", 1, 4, 2)
    read, times = read_segment(str(tmp_path), row)
    np.testing.assert_array_equal(read, features)
    np.testing.assert_array_equal(times, [2.0, 2.5])
    assert json.loads(outcomes[1]["row"])["reason"] == "truncated"
