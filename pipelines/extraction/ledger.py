"""Row conservation: every planned (video, encoder) ends staged whole or failed; anything else fails the job.

Beside that each stage is counted, in pieces: a segment for an encoder. `in = out + filtered + failed` holds for each,
and what one gives out the next takes in. Decoding counts as it goes (its counts travel with the last row of each work
row); staging counts what came to it, and so what encoding took in and gave out; the driver counts what staging gave
out. Publishing is counted in videos of the snapshot; `publish` proves its samples by their keys.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

DECODE, ENCODE, STAGE, PUBLISH = "decode", "encode", "stage", "publish"
"""The stages; of encode, each encoder is one: `encode:{name}`."""


class RowConservationError(Exception):
    """Rows went in that neither came out nor failed: a defect of the pipeline, never of a video."""


@dataclass(slots=True)
class StageCount:
    """What went into a stage, and what became of it.

    Args:
        num_filtered: what needed nothing there: it was staged before, or had failed elsewhere.
    """

    num_in: int = 0
    num_out: int = 0
    num_filtered: int = 0
    num_failed: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether in = out + filtered + failed."""
        return self.num_in == self.num_out + self.num_filtered + self.num_failed

    def add(self, other: "StageCount") -> None:
        """Count what the other counted too."""
        self.num_in += other.num_in
        self.num_out += other.num_out
        self.num_filtered += other.num_filtered
        self.num_failed += other.num_failed

    def __str__(self) -> str:
        return f"{self.num_in} in = {self.num_out} out + {self.num_filtered} filtered + {self.num_failed} failed"


Counts = dict[str, StageCount]
"""By stage."""


def counts_to_json(counts: Mapping[str, StageCount]) -> str:
    """Return counts as the text that travels with the rows."""
    return json.dumps({stage: asdict(count) for stage, count in counts.items()})


def counts_from_json(text: str) -> Counts:
    """Return what `counts_to_json` wrote."""
    return {stage: StageCount(**values) for stage, values in json.loads(text).items()}


def add_counts(counts: Counts, others: Mapping[str, StageCount]) -> None:
    """Add other counts, stage by stage."""
    for stage, count in others.items():
        counts.setdefault(stage, StageCount()).add(count)


@dataclass(slots=True)
class Ledger:
    """What was planned, what was staged, what failed; keyed by video."""

    pending: dict[str, dict[str, set[int]]]
    """video_id → encoder → segments staged so far, for the videos still open"""
    num_done: int = 0
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    num_staged: int = 0
    """pieces that came out of the last stage"""
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
        self.num_staged += 1
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
            RowConservationError: naming the videos that neither came out nor failed, and the stages that do not add up.
        """
        found = self._unbalanced()
        if self.pending:
            names = ", ".join(sorted(self.pending)[:5])
            found.insert(0, f"{len(self.pending)} videos neither came out nor failed, e.g. {names}")
        if found:
            raise RowConservationError("; ".join(found))

    def _unbalanced(self) -> list[str]:
        """Return what does not add up, the first stage first."""
        encoded = [count for stage, count in self.counts.items() if stage.startswith(ENCODE)]
        decode, stage = (self.counts.get(name, StageCount()) for name in (DECODE, STAGE))
        steps = [
            ("decode gave out", decode.num_out, "encode took in", sum(count.num_in for count in encoded)),
            ("encode gave out", sum(count.num_out for count in encoded), "stage took in", stage.num_in),
            ("stage gave out", stage.num_out, "the driver took in", self.num_staged),
        ]
        lost = [f"{name}: {count} is not true" for name, count in self.counts.items() if not count.is_whole]
        return lost + [f"{gave} {out} and {took} {num_in}" for gave, out, took, num_in in steps if out != num_in]

    def _complete(self, video_id: str) -> bool:
        everything = set(range(self._num_segments[video_id]))
        return all(segments == everything for segments in self.pending[video_id].values())
