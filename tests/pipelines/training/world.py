"""A small store with planted features and captions, and a training on it that takes a second."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hvlm.data.batching import BatchingConfig
from hvlm.data.keys import video_key
from hvlm.data.splits import SplitConfig
from hvlm.encoders.clip import describe_clip
from hvlm.encoders.config import ClipConfig
from hvlm.losses.objective import ObjectiveConfig
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig
from pipelines.store.catalog import FeatureStore
from pipelines.store.encoders import EncoderColumn
from pipelines.store.fingerprint import canonical_json, fingerprint
from pipelines.store.plan import make_plan
from pipelines.store.publish import PublishConfig, publish
from pipelines.store.schema import VIDEOS
from pipelines.store.staging import StagingItem, write_staging_tar
from pipelines.training.config import CheckpointConfig, OptimizerConfig, TextConfig
from pipelines.training.hierarchical_vlm.config import HierarchicalVLMTrainConfig

ROOT = Path(__file__).parents[3]
CLIP = ClipConfig(model=str(ROOT / "jobs/configs/models/tiny_clip.json"), pretrained="random", seed=0)
CLASSES = ("jump", "run", "swim", "throw")
DIMS = {"clip": 8, "c3d": 6}
STRIDES_S = {"clip": 0.5, "c3d": 0.96}


def column(name: str, dims: Mapping[str, int] = DIMS) -> EncoderColumn:
    identity = dict(describe_clip(CLIP).identity) if name == "clip" else {"kind": "c3d", "model": "tiny"}
    return EncoderColumn(fingerprint=fingerprint(identity), dim=dims[name], identity=identity)


def make_store(
    root: Path,
    num_videos: int = 40,
    *,
    metadata: Callable[[int, float], dict[str, Any]] | None = None,
    rows: tuple[int, int] = (6, 30),
    dims: Mapping[str, int] = DIMS,
    shard_bytes: int = 16_000,
) -> str:
    """Publish videos of two encoders; a video's class shows in its features and its captions.

    `metadata` makes annotations, captions and summary of video i of a duration; by default `labelled`.
    """
    store = FeatureStore.open(str(root), create=True)
    columns = {name: column(name, dims) for name in dims}
    ids = [f"video{i:03d}" for i in range(num_videos)]
    durations = np.random.default_rng(0).uniform(rows[0] / 2, rows[1] / 2, num_videos)
    store.commit_videos(
        pl.DataFrame(
            [_video(ids[i], durations[i], (metadata or labelled)(i, float(durations[i]))) for i in range(num_videos)],
            schema=VIDEOS,
        )
    )
    splits = SplitConfig(val_fraction=0.1, dev_fraction=0.2)
    prints = {name: each.fingerprint for name, each in columns.items()}
    todo = make_plan(store.frames(), prints, splits=splits).todo
    items = [
        _item(video, name, columns[name], ids.index(video["video_id"])) for video in todo.to_dicts() for name in dims
    ]
    store.commit_staged(write_staging_tar(str(root), "run", items))
    publish(store, PublishConfig(target_shard_bytes=shard_bytes, splits=splits), columns)
    return str(root)


def encode_text(texts: Sequence[str]) -> np.ndarray:
    """Stands in for a text tower: class words have directions, the rest is noise by text."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(len(CLASSES), 8))
    rows = []
    for text in texts:
        noise = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)).normal(size=8)
        rows.append(0.2 * noise + sum(directions[i] for i, name in enumerate(CLASSES) if name in text))
    return np.asarray(rows, np.float32)


def train_config(store: str, output: Path, **changes: Any) -> HierarchicalVLMTrainConfig:
    """A tiny training: 2 layers of width 16, dropout on, text on."""
    values: dict[str, Any] = {
        "store_uri": store,
        "output_uri": str(output),
        "epochs": 4,
        "log_every_steps": 2,
        "model": HierarchicalVLMConfig(
            encoder=TemporalEncoderConfig(d_model=16, num_layers=2, num_heads=2, d_ff=32, dropout=0.1),
            projector=ProjectorConfig(dim=16),
            alignment=AlignmentConfig(dim=16),
        ),
        "objective": ObjectiveConfig(text=1.0),
        "text": TextConfig(encoder=CLIP),
        "batching": BatchingConfig(global_batch_size=4, max_rows=24),
        "optimizer": OptimizerConfig(lr=3e-3),
        "checkpoint": CheckpointConfig(every_steps=5),
        "tracking": TrackingConfig(uri=f"sqlite:///{output.parent}/mlflow.db", system_metrics_interval_s=0),
        "cluster": ClusterConfig(num_cpus=2, object_store_memory_bytes=200_000_000),
    }
    return HierarchicalVLMTrainConfig(**(values | changes))


def labelled(i: int, duration_s: float) -> dict[str, Any]:
    """A label; up to two captions; every fifth video has a summary."""
    label = CLASSES[i % 4]
    return {
        "annotations": [{"label": label, "segment": [0.0, duration_s]}],
        "captions": [{"text": f"someone can {label} {n}", "segment": [0.0, 1.0]} for n in range(i % 3)],
        "summary": f"they {label} all day" if i % 5 == 0 else None,
    }


def silent(i: int, duration_s: float) -> dict[str, Any]:
    """No text of any kind."""
    return {"annotations": [], "captions": [], "summary": None}


def two_levels(i: int, duration_s: float) -> dict[str, Any]:
    """Three captions over the video, but none for every eighth; a summary, but none for every third.

    So videos 15 and 39 have neither. Classes 0 and 1 have tags.
    """
    label, third_s = CLASSES[i % 4], duration_s / 3
    tags = {"verbs": [i % 4], "nouns": [3]} if i % 4 < 2 else {}
    captions = [
        {"text": f"someone can {label} {i % 5 + n}", "segment": [n * third_s, (n + 1) * third_s]} | tags
        for n in range(3)
    ]
    return {
        "annotations": [],
        "captions": [] if i % 8 == 7 else captions,
        "summary": f"they {label} all day, said {i}" if i % 3 else None,
    }


def parts(i: int, duration_s: float) -> dict[str, Any]:
    """Six captions of each of two passes; a summary of the first half by one and of the last two thirds by the other.

    In every sixth video the second pass has no captions; every fourth has a summary of the whole too.
    """
    label = CLASSES[i % 4]
    edges = [n * duration_s / 6 for n in range(7)]

    def told(name: str) -> list[dict[str, Any]]:
        return [
            {"text": f"someone can {label} {name} {n}", "segment": edges[n : n + 2], "pass": name} for n in range(6)
        ]

    summaries = [
        {"text": f"they {label} first, said {i}", "segment": [edges[0], edges[3]], "pass": "one", "verbs": [7]},
        {"text": f"they {label} last, said {i}", "segment": [edges[2], edges[6]], "pass": "two"},
    ]
    return {
        "annotations": [],
        "captions": told("one") + (told("two") if i % 6 else []),
        "summaries": summaries,
        "summary": f"they {label} all day, said {i}" if i % 4 == 0 else None,
    }


def _video(video_id: str, duration_s: float, metadata: dict[str, Any]) -> dict[str, Any]:
    content = canonical_json({"subset": None, "split": None, "columns": {}} | metadata)
    return dict.fromkeys(VIDEOS) | {
        "snapshot": 1,
        "video_id": video_id,
        "key": video_key(video_id),
        "uri": f"/videos/{video_id}.mp4",
        "size_bytes": 1,
        "stamp": "1",
        "hash_kind": "sampled",
        "content_hash": hashlib.sha256(video_id.encode()).hexdigest(),
        "duration_s": float(duration_s),
        "metadata_json": content,
        "metadata_hash": hashlib.sha256(content.encode()).hexdigest(),
        "state": "live",
    }


def _item(video: dict[str, Any], name: str, encoder: EncoderColumn, number: int) -> StagingItem:
    stride_s, duration_s = STRIDES_S[name], video["duration_s"]
    num_rows = max(1, int(duration_s / stride_s))
    rng = np.random.default_rng([number, len(name)])
    direction = np.random.default_rng([number % 4, len(name), 1]).normal(size=encoder.dim)
    features = direction + 0.7 * rng.normal(size=encoder.dim) + 0.7 * rng.normal(size=(num_rows, encoder.dim))
    return StagingItem(
        video_id=video["video_id"],
        key=video["key"],
        content_hash=video["content_hash"],
        encoder=name,
        fingerprint=encoder.fingerprint,
        layout="whole",
        segment_index=0,
        num_segments=1,
        row_start=0,
        num_rows=num_rows,
        duration_s=duration_s,
        fps=1 / stride_s,
        stride_s=stride_s,
        clip_s=stride_s,
        offset_s=0.0,
        features=features.astype(np.float16),
        times_s=np.arange(num_rows) * stride_s,
    )
