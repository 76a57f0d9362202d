"""Stage 3 of extraction, N:1 file: the features of a batch of segments go into one staging tar; one JSON outcome
leaves per thing done.

An outcome is either a staged (segment, encoder), with its place in the tar, or a failed segment. The driver commits
them to the catalog.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra import retries
from pipelines.extraction.columns import ERROR, RowTiming, binary_value, column
from pipelines.store.staging import StagingItem, write_staging_tar

OUTCOME_SCHEMA = pa.schema(
    [("kind", pa.string()), ("row", pa.string()), ("num_frames", pa.int64()), ("num_retries", pa.int64())]
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
            frames += table.column("num_frames_decoded")[row].as_py()
            items += self._items(table, row)
        staged = write_staging_tar(self.store_uri, self.run_id, items) if items else []
        num_retries = sum(table.column("num_retries").drop_null().to_pylist()) + retries.take()
        outcomes = [("staged", staged_row) for staged_row in staged] + [("failed", failed_row) for failed_row in failed]
        return pa.table(
            {
                "kind": [kind for kind, _ in outcomes],
                "row": [json.dumps(row) for _, row in outcomes],
                "num_frames": [frames if i == 0 else 0 for i in range(len(outcomes))],
                "num_retries": [num_retries if i == 0 else 0 for i in range(len(outcomes))],
            },
            schema=OUTCOME_SCHEMA,
        )

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
