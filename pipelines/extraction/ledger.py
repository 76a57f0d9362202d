"""Row conservation: every planned (video, encoder) ends staged whole or failed; anything else fails the job."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl


class RowConservationError(Exception):
    """Rows went in that neither came out nor failed: a defect of the pipeline, never of a video."""


@dataclass(slots=True)
class Ledger:
    """What was planned, what was staged, what failed; keyed by video."""

    pending: dict[str, dict[str, set[int]]]
    """video_id → encoder → segments staged so far, for the videos still open"""
    num_done: int = 0
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    _num_segments: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, todo: pl.DataFrame) -> "Ledger":
        """Start from the plan's todo list, with the segments that earlier runs staged."""
        pending = {
            video["video_id"]: {need["encoder"]: set(need["staged_segments"]) for need in video["needs"]}
            for video in todo.select("video_id", "needs").iter_rows(named=True)
        }
        return cls(pending=pending)

    def staged(self, row: dict[str, Any]) -> None:
        """Count one staged (segment, encoder).

        Raises:
            RowConservationError: it was not planned, or it was staged before.
        """
        video_id, encoder, segment = row["video_id"], row["encoder"], row["segment_index"]
        if video_id in self.failures:
            return  # another segment of it failed; what is staged stays for a retry
        segments = self.pending.get(video_id, {}).get(encoder)
        if segments is None or segment in segments:
            raise RowConservationError(
                f"segment {segment} of video '{video_id}' by {encoder} came out twice or was never planned"
            )
        segments.add(segment)
        self._num_segments[video_id] = row["num_segments"]
        if self._complete(video_id):
            del self.pending[video_id]
            del self._num_segments[video_id]
            self.num_done += 1

    def failed(self, row: dict[str, Any]) -> bool:
        """Count a failed row; returns True when it is the video's first failure (the one that is recorded)."""
        video_id = row["video_id"]
        if video_id in self.failures:
            return False
        if video_id not in self.pending:
            raise RowConservationError(f"video '{video_id}' failed after it was complete, or was never planned")
        needed = self.pending.pop(video_id)
        self._num_segments.pop(video_id, None)
        self.failures[video_id] = {**row, "encoders": list(needed)}
        return True

    def check(self) -> None:
        """Prove that nothing was lost.

        Raises:
            RowConservationError: naming the videos that neither came out nor failed.
        """
        if self.pending:
            names = ", ".join(sorted(self.pending)[:5])
            raise RowConservationError(f"{len(self.pending)} videos neither came out nor failed, e.g. {names}")

    def _complete(self, video_id: str) -> bool:
        everything = set(range(self._num_segments[video_id]))
        return all(segments == everything for segments in self.pending[video_id].values())
