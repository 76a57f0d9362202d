"""Outcomes go through the ledger, are counted, and are drained once."""

import json
from typing import Any

import polars as pl
import pytest

from infra import retries
from pipelines.extraction.ledger import StageCount, counts_to_json
from pipelines.extraction.outcomes import Outcomes
from tests.pipelines.extraction.test_ledger import staged, todo


def outcome(kind: str, row: dict[str, Any], frames: int = 0, num_retries: int = 0) -> dict[str, Any]:
    counts = {"kind": kind, "num_frames": frames, "num_retries": num_retries, "counts": None}
    return counts | {"row": json.dumps(row)}


def outcomes_of(*videos: tuple[str, dict[str, list[int]]]) -> Outcomes:
    frame = todo(*videos)
    return Outcomes.of(frame.with_columns(uri="/videos/" + frame["video_id"]))


def test_staged_rows_are_counted_and_drained_once() -> None:
    outcomes = outcomes_of(("a", {"clip": [], "c3d": []}))
    retries.take()
    rows = [staged("a", encoder, segment, 2) | {"duration_s": 8.0} for encoder in ("clip", "c3d") for segment in (0, 1)]
    taken = outcomes.take([outcome("staged", row, frames=5, num_retries=1) for row in rows[:3]])
    assert (taken, retries.take()) == (15, 3)
    assert outcomes.video_s == 6.0 and outcomes.ledger.num_done == 0
    assert outcomes.drain() == (rows[:3], [])
    outcomes.take([outcome("staged", rows[3])])
    assert outcomes.drain() == (rows[3:], []) and outcomes.drain() == ([], [])
    assert outcomes.video_s == outcomes.kept_s["a"] == 8.0 and outcomes.ledger.num_done == 1


def test_a_video_fails_once_with_its_place() -> None:
    outcomes = outcomes_of(("a", {"clip": []}), ("b", {"clip": []}))
    failure = {"video_id": "b", "stage": "decode", "reason": "truncated"}
    outcomes.take([outcome("failed", failure), outcome("failed", failure)])
    assert outcomes.drain()[1] == [{**failure, "uri": "/videos/b", "encoders": ["clip"]}]


def test_what_the_stages_counted_is_added_whatever_else_came() -> None:
    outcomes = outcomes_of(("a", {"clip": []}))
    counted = outcome("counted", {}) | {"counts": counts_to_json({"decode": StageCount(2, 1, 1)})}
    assert outcomes.take([counted, counted]) == 0 and outcomes.drain() == ([], [])
    assert outcomes.ledger.counts == {"decode": StageCount(4, 2, 2)}


def test_of_an_encoder_that_samples_spans_their_seconds_count() -> None:
    spans = {"annotations": [{"segment": [1.0, 2.0]}, {"segment": [1.5, 3.0]}], "captions": [{"segment": [7.0, 99.0]}]}
    frame = todo(("a", {"clip": [], "c3d": []})).with_columns(uri=pl.lit("a"), metadata_json=pl.lit(json.dumps(spans)))
    outcomes = Outcomes.of(frame, frozenset({"clip"}))
    rows = [staged("a", encoder, segment, 2) | {"duration_s": 8.0} for encoder in ("clip", "c3d") for segment in (0, 1)]
    outcomes.take([outcome("staged", row) for row in rows])
    assert outcomes.video_s == pytest.approx((3.0 + 8.0) / 2)
