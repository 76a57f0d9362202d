"""Stage 3 of extraction, N:1 file: the features of a batch of segments go into one staging tar; one JSON outcome
leaves per thing done.

An outcome is either a staged (segment, encoder), with its place in the tar, or a failed segment, or nothing but counts.
The driver commits them to the catalog.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra import retries
from pipelines.extraction.columns import COUNTS, ERROR, RowTiming, binary_value, column
from pipelines.extraction.ledger import (
    DECODE,
    ENCODE,
    STAGE,
    Counts,
    StageCount,
    add_counts,
    counts_from_json,
    counts_to_json,
)
from pipelines.store.staging import StagingItem, write_staging_tar

OUTCOME_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # staged | failed | counted
        ("row", pa.string()),
        # Of the batch, in its first outcome.
        ("num_frames", pa.int64()),
        ("num_retries", pa.int64()),
        ("counts", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedEncoder:
    """What the catalog says of an encoder's staged rows."""

    fingerprint: str
    layout: str
    dim: int


@dataclass(kw_only=True)  # neither frozen nor with slots: Ray Data makes a subclass of it
class Stager:
    """The staging stage's settings; calling it on a batch writes its tar and returns the outcomes."""

    store_uri: str
    run_id: str
    encoders: dict[str, StagedEncoder]

    def __call__(self, table: pa.Table) -> pa.Table:
        items, failed, frames = [], [], 0
        for row in range(table.num_rows):
            values = {name: table.column(name)[row].as_py() for name in ("video_id", "key", "content_hash", ERROR)}
            if values[ERROR] is not None:
                failed.append({**values, **json.loads(values[ERROR])})
                continue
            frames += table.column("num_frames_decoded")[row].as_py() or 0
            items += self._items(table, row)
        staged = write_staging_tar(self.store_uri, self.run_id, items) if items else []
        counts = self._counts(table)
        counts[STAGE].num_out = len(staged)
        num_retries = sum(table.column("num_retries").drop_null().to_pylist()) + retries.take()
        outcomes = [("staged", staged_row) for staged_row in staged] + [("failed", failed_row) for failed_row in failed]
        outcomes = outcomes or [("counted", {})]
        return pa.table(
            {
                "kind": [kind for kind, _ in outcomes],
                "row": [json.dumps(row) for _, row in outcomes],
                "num_frames": [frames if i == 0 else 0 for i in range(len(outcomes))],
                "num_retries": [num_retries if i == 0 else 0 for i in range(len(outcomes))],
                "counts": [counts_to_json(counts) if i == 0 else None for i in range(len(outcomes))],
            },
            schema=OUTCOME_SCHEMA,
        )

    def _counts(self, table: pa.Table) -> Counts:
        """Return what the rows say of the stages before, and what comes into this one; not what it gives out."""
        counts: Counts = {DECODE: StageCount(), **{f"{ENCODE}:{name}": StageCount() for name in self.encoders}}
        stage_count = counts[STAGE] = StageCount()
        for text in table.column(COUNTS).drop_null().to_pylist():
            add_counts(counts, counts_from_json(text))
        errors = table.column(ERROR).to_pylist()
        stages = [json.loads(error)["stage"] if error is not None else None for error in errors]
        for name in self.encoders:
            encode = counts[f"{ENCODE}:{name}"]
            decoded, encoded = (
                table.column(column(name, part)).is_valid().to_pylist() for part in ("timing", "features")
            )
            for stage, came, went in zip(stages, decoded, encoded, strict=True):
                encode.num_in += came
                encode.num_out += went
                encode.num_failed += stage == f"{ENCODE}:{name}"
                encode.num_filtered += came and not went and stage not in (None, f"{ENCODE}:{name}")
                stage_count.num_in += went
                stage_count.num_filtered += went and stage is not None
        return counts

    def _items(self, table: pa.Table, row: int) -> list[StagingItem]:
        common = {
            name: table.column(name)[row].as_py()
            for name in ("video_id", "key", "content_hash", "segment_index", "num_segments", "duration_s")
        }
        items = []
        for name, encoder in self.encoders.items():
            features = binary_value(table, column(name, "features"), row)
            times = binary_value(table, column(name, "times"), row)
            if features is None or times is None:
                continue
            timing = RowTiming.from_json(table.column(column(name, "timing"))[row].as_py())
            items.append(_item(common, name, encoder, timing, (features, times)))
        return items


def _item(
    common: dict[str, Any], name: str, encoder: StagedEncoder, timing: RowTiming, data: tuple[memoryview, memoryview]
) -> StagingItem:
    return StagingItem(
        **common,
        encoder=name,
        fingerprint=encoder.fingerprint,
        layout=encoder.layout,
        row_start=timing.row_start,
        num_rows=timing.num_rows,
        fps=timing.fps,
        stride_s=timing.stride_s,
        clip_s=timing.clip_s,
        offset_s=timing.offset_s,
        features=np.frombuffer(data[0], np.float16).reshape(timing.num_rows, encoder.dim),
        times_s=np.frombuffer(data[1], np.float64),
    )
