"""A small store with planted actions and a checkpoint of an untrained model, for the tests of the evaluation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvlm.encoders.clip import describe_clip
from hvlm.encoders.config import ClipConfig
from hvlm.losses.objective import ObjectiveConfig
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from infra.config_io import dump_config
from infra.tracking import TrackingConfig, open_run
from pipelines.evaluation.videos import VideoSource
from pipelines.store.encoders import EncoderColumn
from pipelines.store.fingerprint import fingerprint
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.training.checkpoints import Checkpoint, CheckpointContent, CheckpointInfo, save_checkpoint
from pipelines.training.config import TextConfig
from pipelines.training.hierarchical_vlm.config import HierarchicalVLMTrainConfig
from tests.pipelines.store.world import World, column

CLIP = ClipConfig(model="jobs/configs/models/tiny_clip.json", pretrained="random")
LABELS = ("bounce", "spin", "slide", "blink")
NUM_ROWS, STRIDE_S = 30, 1.0
NOISE = 0.4


def clip_column() -> EncoderColumn:
    described = describe_clip(CLIP)
    return EncoderColumn(fingerprint=fingerprint(described.identity), dim=described.dim, identity=described.identity)


def encoders() -> dict[str, EncoderColumn]:
    return {"clip": clip_column(), "c3d": column("c3d", 6)}


def script(index: int) -> list[dict[str, Any]]:
    """Two of the four actions, [3, 13) and [16, 27) s; the pairs (0, 1) and (1, 0) differ only in order."""
    first, second = [(0, 1), (1, 0), (2, 3), (3, 2)][index % 4]
    return [{"label": LABELS[first], "segment": [3.0, 13.0]}, {"label": LABELS[second], "segment": [16.0, 27.0]}]


def planted_rows(index: int, name: str, dim: int) -> np.ndarray:
    """A direction per action (shared by all videos) + noise; background rows are noise."""
    directions = np.random.default_rng(sum(name.encode())).normal(size=(len(LABELS), dim))
    rows = NOISE * np.random.default_rng([index, len(name), dim]).normal(size=(NUM_ROWS, dim))
    for item in script(index):
        start, end = (int(value) for value in item["segment"])
        rows[start:end] += directions[LABELS.index(item["label"])]
    return rows.astype(np.float16)


class PlantedWorld(World):
    """A `World` whose staged features are the planted rows."""

    def _item(self, video: Mapping[str, Any], name: str, encoder: EncoderColumn, segment: int) -> Any:
        item = super()._item(video, name, encoder, segment)
        starts = [0, 10, 15, NUM_ROWS]
        start, end = starts[segment], starts[segment + 1]
        rows = planted_rows(int(video["video_id"].rsplit("-", 1)[1]), name, encoder.dim)
        changes = {"row_start": start, "num_rows": end - start, "features": rows[start:end]}
        changes["times_s"] = STRIDE_S * np.arange(start, end, dtype=np.float64)
        return type(item)(**({field: getattr(item, field) for field in item.__dataclass_fields__} | changes))


def make_store(
    root: Path, num_videos: int = 48, annotated: bool = True, splits: tuple[str, ...] = ("train", "train", "dev", "val")
) -> str:
    """Return the URI of a store whose videos go through `splits` in blocks of four, so that each has every activity."""
    world = PlantedWorld(root)
    for index in range(num_videos):
        said: dict[str, Any] = {"split": splits[(index // 4) % len(splits)]}
        if annotated:
            actions = script(index)
            captions = [{"text": f"something does {a['label']}", "segment": a["segment"]} for a in actions]
            said |= {"annotations": actions, "captions": captions}
            said["summary"] = f"first {actions[0]['label']}, then {actions[1]['label']}, in take {index}"
        world.add(f"clip-{index:03d}", **said)
    world.run(encoders())
    return str(root)


def make_checkpoint(
    store_uri: str, output: Path, *, aligned: bool = True, tracking: TrackingConfig | None = None
) -> tuple[Checkpoint, CheckpointInfo]:
    """Write a checkpoint of an untrained model, and its MLflow run beside it."""
    torch.manual_seed(0)
    tracking = tracking or TrackingConfig(
        uri=f"sqlite:///{output}/mlflow.db", experiment="test", system_metrics_interval_s=0
    )
    model_config = HierarchicalVLMConfig(
        encoder=TemporalEncoderConfig(d_model=32, num_layers=1, num_heads=2, d_ff=32),
        projector=ProjectorConfig(dim=8),
        alignment=AlignmentConfig(enabled=aligned, dim=16),
    )
    config = HierarchicalVLMTrainConfig(
        store_uri=store_uri,
        output_uri=str(output),
        model=model_config,
        objective=ObjectiveConfig(text=1.0 if aligned else 0.0),
        text=TextConfig(encoder=CLIP if aligned else None),
        tracking=tracking,
    )
    manifest = open_manifest(store_uri)
    widths = tuple(int(manifest.rows(name)["dim"][0]) for name in manifest.encoders)
    d_text = clip_column().dim if aligned else None
    model = build_model(model_config, widths, d_text)
    tracker = open_run(tracking, str(output / "run.json"))
    for step in (1, 2):
        tracker.log_metrics({"train/loss/total": 1.0 / step}, step)
    tracker.flush()
    info = CheckpointInfo(
        config=dump_config(config),
        encoders=tuple(manifest.encoders.items()),
        d_in=widths,
        d_text=d_text,
        store_uri=store_uri,
        store_version=manifest.version,
        manifest_hash=manifest.manifest_hash,
        step=2,
        git_commit="abc",
        run_id=tracker.run_id,
    )
    content = CheckpointContent(model=model.state_dict(), trainer={"step": 2}, info=info, metrics={"x": 1.0}, score=1.0)
    saved = save_checkpoint(str(output), content)
    tracker.log_checkpoint(2, saved.uri, {"x": 1.0}, best=True)
    tracker.finish("FINISHED")
    return saved, info


def source_of(store_uri: str) -> VideoSource:
    """The videos of a planted store as an evaluation reads them."""
    return VideoSource(store_uri=store_uri, encoders=("clip", "c3d"), clip="clip", l2_normalise=False)


def read_only_spans(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make the store one of the annotated spans, [3, 13) and [16, 27) s, for these encoders."""

    def read(store_uri: str, row: Mapping[str, Any], encoder: str) -> Any:
        features, meta = read_sample(store_uri, row, encoder)
        if encoder not in names:
            return features, meta
        times = np.array(meta.timestamps_s)
        kept = ((times >= 3) & (times < 13)) | ((times >= 16) & (times < 27))
        return features[kept], replace(meta, num_rows=int(kept.sum()), timestamps_s=times[kept].tolist())

    monkeypatch.setattr("pipelines.evaluation.videos.read_sample", read)
