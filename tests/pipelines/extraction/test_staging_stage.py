"""The staging stage: features land in one tar, failures pass, each as an outcome."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from hvlm.data.keys import video_key
from infra import retries
from pipelines.extraction.columns import ERROR, RowTiming, column, row_table
from pipelines.extraction.staging_stage import StagedEncoder, Stager
from pipelines.store.staging import read_segment


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
    retries.take()
    retries.add(1)  # of the stage itself
    outcomes = stager(pa.concat_tables([good, bad])).to_pylist()
    assert [outcome["num_retries"] for outcome in outcomes] == [3, 0]
    assert [outcome["kind"] for outcome in outcomes] == ["staged", "failed"]
    assert sum(outcome["num_frames"] for outcome in outcomes) == 7
    row = json.loads(outcomes[0]["row"])
    assert (row["video_id"], row["segment_index"], row["row_start"], row["num_rows"]) == ("a b", 1, 4, 2)
    read, times = read_segment(str(tmp_path), row)
    np.testing.assert_array_equal(read, features)
    np.testing.assert_array_equal(times, [2.0, 2.5])
    assert json.loads(outcomes[1]["row"])["reason"] == "truncated"
