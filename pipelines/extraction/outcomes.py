"""What comes out of the extraction pipeline, counted by the ledger and kept until the driver commits it."""

import json
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from infra import retries
from pipelines.extraction.ledger import Ledger


@dataclass(slots=True)
class Outcomes:
    """What came out of the pipeline and was not drained yet; every outcome goes through the ledger first."""

    ledger: Ledger
    uris: dict[str, str]
    num_encoders: dict[str, int]
    """video_id → encoders that it needs"""
    video_s: float = 0.0
    """Seconds of video that came out; of what half its encoders are through with, the half."""
    staged: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    kept_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, todo: pl.DataFrame) -> "Outcomes":
        """Start from the plan's todo list."""
        needs = todo.select("video_id", pl.col("needs").list.len())
        return cls(Ledger.of(todo), dict(todo.select("video_id", "uri").iter_rows()), dict(needs.iter_rows()))

    def take(self, outcomes: list[dict[str, Any]]) -> int:
        """Count a batch of outcomes and return its number of decoded frames."""
        for outcome in outcomes:
            retries.add(outcome["num_retries"])
            row = json.loads(outcome["row"])
            if outcome["kind"] == "staged":
                self.ledger.staged(row)
                self.staged.append(row)
                self.video_s += row["duration_s"] / row["num_segments"] / self.num_encoders[row["video_id"]]
                self.kept_s[row["video_id"]] = row["duration_s"]
            elif self.ledger.failed(row | {"uri": self.uris[row["video_id"]]}):
                self.failed.append(self.ledger.failures[row["video_id"]])
        return sum(outcome["num_frames"] for outcome in outcomes)

    def drain(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the staged and the failed rows since the last call."""
        staged, failed, self.staged, self.failed = self.staged, self.failed, [], []
        return staged, failed
