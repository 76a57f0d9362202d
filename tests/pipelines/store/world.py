"""A small store with made-up features, for the tests of this folder: no video is decoded."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hvlm.data.keys import video_key
from hvlm.data.splits import SplitConfig
from pipelines.store.catalog import FeatureStore
from pipelines.store.encoders import EncoderColumn
from pipelines.store.fingerprint import canonical_json, fingerprint
from pipelines.store.plan import Plan, make_plan
from pipelines.store.publish import PublishConfig, PublishSummary, publish, run_inline
from pipelines.store.schema import VIDEOS
from pipelines.store.spans import file_part
from pipelines.store.staging import StagingItem, write_staging_tar

CONFIG = PublishConfig(target_shard_bytes=40_000, splits=SplitConfig(val_fraction=0.25, dev_fraction=0.1))


def column(name: str, dim: int, version: int = 0) -> EncoderColumn:
    identity = {"kind": name, "model": f"tiny-{version}"}
    return EncoderColumn(fingerprint=fingerprint(identity), dim=dim, identity=identity)


CLIP, C3D = column("clip", 8), column("c3d", 16)
BOTH = {"clip": CLIP, "c3d": C3D}


@dataclass
class World:
    """Videos (id -> content, metadata) and the store that follows them; `+` in a content begins its spans."""

    root: Path | str
    videos: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = FeatureStore.open(str(self.root), create=True)

    def add(self, *ids: str, content: str = "v1", **metadata: Any) -> None:
        for video_id in ids:
            base: dict[str, Any] = {
                "subset": None,
                "split": None,
                "annotations": [],
                "captions": [],
                "summary": None,
                "columns": {},
            }
            self.videos[video_id] = (f"{video_id}:{content}", base | metadata)

    def remove(self, video_id: str) -> None:
        del self.videos[video_id]

    def snapshot(self) -> None:
        """Commit what differs from the catalog."""
        known = {row["video_id"]: row for row in self.store.videos(include_tombstones=True).to_dicts()}
        number = 1 + max((row["snapshot"] for row in known.values()), default=0)
        rows = [self._row(video_id, number) for video_id in self.videos]
        rows = [row for row in rows if _differs(row, known.get(row["video_id"]))]
        gone = [row for video_id, row in known.items() if video_id not in self.videos and row["state"] == "live"]
        rows += [row | {"snapshot": number, "state": "tombstone"} for row in gone]
        self.store.commit_videos(pl.DataFrame(rows, schema=VIDEOS))

    def plan(self, encoders: Mapping[str, EncoderColumn] = BOTH) -> Plan:
        return make_plan(
            self.store.frames(), {name: encoder.fingerprint for name, encoder in encoders.items()}, splits=CONFIG.splits
        )

    def stage(
        self,
        encoders: Mapping[str, EncoderColumn] = BOTH,
        order: int = 1,
        skip: Iterable[tuple[str, int]] = (),
        run_id: str = "run",
        per_tar: int = 5,
    ) -> int:
        """Stage the plan's todo list (backwards for order=-1) but for the (video, segment) pairs in `skip`."""
        items = []
        for video in self.plan(encoders).todo.to_dicts():
            for need in video["needs"]:
                for segment in range(3):
                    if segment not in need["staged_segments"] and (video["video_id"], segment) not in set(skip):
                        items.append(self._item(video, need["encoder"], encoders[need["encoder"]], segment))
        items = items[::order]
        for start in range(0, len(items), per_tar):
            self.store.commit_staged(write_staging_tar(str(self.root), run_id, items[start : start + per_tar]))
        return len(items)

    def publish(
        self, encoders: Mapping[str, EncoderColumn] = BOTH, config: PublishConfig = CONFIG, run_tasks: Any = run_inline
    ) -> PublishSummary:
        return publish(self.store, config, encoders, run_tasks)

    def run(self, encoders: Mapping[str, EncoderColumn] = BOTH, **options: Any) -> PublishSummary:
        """Snapshot, stage and publish."""
        self.snapshot()
        self.stage(encoders, **options)
        return self.publish(encoders)

    def _row(self, video_id: str, number: int) -> dict[str, Any]:
        content, metadata = self.videos[video_id]
        file, *spans = content.split("+")
        text = canonical_json(metadata)
        return dict.fromkeys(VIDEOS) | {
            "snapshot": number,
            "video_id": video_id,
            "key": video_key(video_id),
            "uri": f"/videos/{video_id}.mp4",
            "size_bytes": 1,
            "stamp": content,
            "hash_kind": "sampled",
            "content_hash": "+".join([hashlib.sha256(file.encode()).hexdigest(), *spans]),
            "duration_s": 30.0,
            "subset": metadata["subset"],
            "split": metadata["split"],
            "metadata_json": text,
            "metadata_hash": hashlib.sha256(text.encode()).hexdigest(),
            "state": "live",
        }

    def _item(self, video: Mapping[str, Any], name: str, encoder: EncoderColumn, segment: int) -> StagingItem:
        features = planted_features(video["content_hash"], name, encoder)
        starts = [0, len(features) // 3, len(features) // 2, len(features)]
        start, end = starts[segment], starts[segment + 1]
        return StagingItem(
            video_id=video["video_id"],
            key=video["key"],
            content_hash=video["content_hash"],
            encoder=name,
            fingerprint=encoder.fingerprint,
            layout="10s",
            segment_index=segment,
            num_segments=3,
            row_start=start,
            num_rows=end - start,
            duration_s=30.0,
            fps=1.0,
            stride_s=1.0,
            clip_s=1.0,
            offset_s=0.0,
            features=features[start:end],
            times_s=np.arange(start, end, dtype=np.float64),
        )


def planted_features(content_hash: str, name: str, encoder: EncoderColumn) -> np.ndarray:
    """The features that a video of this file has; 10 to 49 rows."""
    seed = int(hashlib.sha256(f"{file_part(content_hash)}{name}{encoder.fingerprint}".encode()).hexdigest()[:8], 16)
    num_rows = 10 + int(content_hash[:4], 16) % 40
    return np.random.default_rng(seed).normal(size=(num_rows, encoder.dim)).astype(np.float16)


def tree(root: Path, folder: str = "features") -> dict[str, str]:
    """Return {relative path: sha256} of the files below a folder of the store."""
    files = sorted(path for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ids(count: int) -> Sequence[str]:
    return [f"video{index:03d}" for index in range(count)]


def _differs(row: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    names = ("content_hash", "metadata_hash", "state")
    return known is None or json.dumps([row[name] for name in names]) != json.dumps([known[name] for name in names])
