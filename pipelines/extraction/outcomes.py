"""What comes out of the extraction pipeline, counted by the ledger and kept until the driver commits it."""

import json
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from hvlm.video.spans import Spans, covered_s
from infra import retries
from pipelines.extraction.ledger import Ledger, add_counts, counts_from_json
from pipelines.store.spans import spans_of


@dataclass(slots=True)
class Outcomes:
    """What came out of the pipeline and was not drained yet; every outcome goes through the ledger first."""

    ledger: Ledger
    uris: dict[str, str]
    num_encoders: dict[str, int]
    """video_id → encoders that it needs"""
    video_s: float = 0.0
    """Seconds of video that came out; of what half its encoders are through with, the half."""
    spans_s: dict[str, Spans] = field(default_factory=dict)
    """video_id → annotated spans, where an encoder samples them"""
    span_encoders: frozenset[str] = frozenset()
    """encoders of which the spans alone count as seconds"""
    staged: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    kept_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, todo: pl.DataFrame, span_encoders: frozenset[str] = frozenset()) -> "Outcomes":
        """Start from the plan's todo list; it has `metadata_json` where an encoder samples spans."""
        texts = todo.select("video_id", "metadata_json").iter_rows() if span_encoders else ()
        needs = todo.select("video_id", pl.col("needs").list.len())
        return cls(
            ledger=Ledger.of(todo),
            uris=dict(todo.select("video_id", "uri").iter_rows()),
            num_encoders=dict(needs.iter_rows()),
            spans_s={video_id: spans_of(text) if text else [] for video_id, text in texts},
            span_encoders=span_encoders,
        )

    def take(self, outcomes: list[dict[str, Any]]) -> int:
        """Count a batch of outcomes and return its number of decoded frames."""
        for outcome in outcomes:
            retries.add(outcome["num_retries"])
            if outcome["counts"]:
                add_counts(self.ledger.counts, counts_from_json(outcome["counts"]))
            row = json.loads(outcome["row"])
            if outcome["kind"] == "staged":
                self.ledger.staged(row)
                self.staged.append(row)
                self.video_s += self._taken_s(row) / row["num_segments"] / self.num_encoders[row["video_id"]]
                self.kept_s[row["video_id"]] = row["duration_s"]
            elif outcome["kind"] == "failed" and self.ledger.failed(row | {"uri": self.uris[row["video_id"]]}):
                self.failed.append(self.ledger.failures[row["video_id"]])
        return sum(outcome["num_frames"] for outcome in outcomes)

    def _taken_s(self, row: dict[str, Any]) -> float:
        duration_s: float = row["duration_s"]
        if row["encoder"] not in self.span_encoders:
            return duration_s
        return covered_s(self.spans_s[row["video_id"]], duration_s)

    def drain(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the staged and the failed rows since the last call."""
        staged, failed, self.staged, self.failed = self.staged, self.failed, [], []
        return staged, failed
