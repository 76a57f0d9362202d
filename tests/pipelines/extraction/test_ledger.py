"""The ledger: every planned (video, encoder) ends staged whole or failed."""

import re

import polars as pl
import pytest

from pipelines.extraction.ledger import (
    Ledger,
    RowConservationError,
    StageCount,
    add_counts,
    counts_from_json,
    counts_to_json,
)


def todo(*videos: tuple[str, dict[str, list[int]]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "video_id": video_id,
                "needs": [{"encoder": name, "staged_segments": done} for name, done in needs.items()],
            }
            for video_id, needs in videos
        ],
        schema={
            "video_id": pl.String,
            "needs": pl.List(pl.Struct({"encoder": pl.String, "staged_segments": pl.List(pl.Int64)})),
        },
    )


def staged(video_id: str, encoder: str, segment: int, of: int) -> dict[str, object]:
    return {"video_id": video_id, "encoder": encoder, "segment_index": segment, "num_segments": of}


def count_all(ledger: Ledger, number: int) -> None:
    """Let the stages have counted so many pieces."""
    ledger.counts = {name: StageCount(number, number) for name in ("decode", "encode:clip", "stage")}


def test_a_video_is_done_when_every_encoder_has_every_segment() -> None:
    ledger = Ledger.of(todo(("a", {"clip": [], "c3d": [0]})))
    ledger.staged(staged("a", "clip", 0, 2))
    ledger.staged(staged("a", "clip", 1, 2))
    assert ledger.num_done == 0
    count_all(ledger, 2)
    with pytest.raises(RowConservationError, match=r"^1 videos neither came out nor failed, e.g. a$"):
        ledger.check()
    ledger.staged(staged("a", "c3d", 1, 2))
    assert ledger.num_done == 1
    count_all(ledger, 3)
    ledger.check()


def test_a_segment_that_comes_twice_is_refused() -> None:
    ledger = Ledger.of(todo(("a", {"clip": []})))
    ledger.staged(staged("a", "clip", 0, 2))
    with pytest.raises(RowConservationError, match="twice"):
        ledger.staged(staged("a", "clip", 0, 2))


def test_a_row_that_was_never_planned_is_refused() -> None:
    ledger = Ledger.of(todo(("a", {"clip": []})))
    with pytest.raises(RowConservationError, match="never planned"):
        ledger.staged(staged("b", "clip", 0, 1))
    with pytest.raises(RowConservationError, match="never planned"):
        ledger.failed({"video_id": "b", "reason": "unreadable"})


def test_a_failure_counts_once_and_later_segments_of_the_video_do_not_complete_it() -> None:
    ledger = Ledger.of(todo(("a", {"clip": []}), ("b", {"clip": []})))
    assert ledger.failed({"video_id": "a", "reason": "truncated"})
    assert not ledger.failed({"video_id": "a", "reason": "truncated"})
    ledger.staged(staged("a", "clip", 0, 1))
    assert ledger.num_done == 0
    ledger.staged(staged("b", "clip", 0, 1))
    count_all(ledger, 2)
    ledger.check()
    assert ledger.failures == {"a": {"video_id": "a", "reason": "truncated", "encoders": ["clip"]}}


def test_counts_travel_and_add_up() -> None:
    counts = {"decode": StageCount(4, 2, 1, 1)}
    add_counts(counts, counts_from_json(counts_to_json({"decode": StageCount(3, 3), "stage": StageCount(1, 0, 1)})))
    assert counts == {"decode": StageCount(7, 5, 1, 1), "stage": StageCount(1, 0, 1)}
    assert str(counts["decode"]) == "7 in = 5 out + 1 filtered + 1 failed"
    assert counts["decode"].is_whole and not StageCount(2, 1).is_whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"decode": StageCount(5, 3, 1)}, "decode: 5 in = 3 out + 1 filtered + 0 failed is not true"),
        ({"encode:clip": StageCount(2, 1)}, "encode:clip: 2 in = 1 out"),
        ({"encode:clip": StageCount(1, 1)}, "decode gave out 3 and encode took in 2"),
        ({"stage": StageCount(1, 1)}, "encode gave out 2 and stage took in 1"),
        ({"stage": StageCount(2, 2)}, "stage gave out 2 and the driver took in 1"),
    ],
)
def test_a_stage_that_loses_a_piece_is_named(changes: dict[str, StageCount], said: str | None) -> None:
    """Of four pieces one was staged before, one fails in encoding and one is filtered by staging, as its row failed."""
    ledger = Ledger.of(todo(("a", {"clip": []})))
    ledger.staged(staged("a", "clip", 0, 1))
    encoded = {"encode:clip": StageCount(2, 1, 0, 1), "encode:c3d": StageCount(1, 1)}
    ledger.counts = {"decode": StageCount(4, 3, 1), **encoded, "stage": StageCount(2, 1, 1)} | changes
    if said is None:
        ledger.check()
        return
    with pytest.raises(RowConservationError, match=re.escape(said)):
        ledger.check()
