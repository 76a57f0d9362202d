"""The ledger: every planned (video, encoder) ends staged whole or failed."""

import polars as pl
import pytest

from pipelines.extraction.ledger import Ledger, RowConservationError


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


def test_a_video_is_done_when_every_encoder_has_every_segment() -> None:
    ledger = Ledger.of(todo(("a", {"clip": [], "c3d": [0]})))
    ledger.staged(staged("a", "clip", 0, 2))
    ledger.staged(staged("a", "clip", 1, 2))
    assert ledger.num_done == 0
    with pytest.raises(RowConservationError, match="1 videos neither"):
        ledger.check()
    ledger.staged(staged("a", "c3d", 1, 2))
    assert ledger.num_done == 1
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
    ledger.check()
    assert ledger.failures == {"a": {"video_id": "a", "reason": "truncated", "encoders": ["clip"]}}
