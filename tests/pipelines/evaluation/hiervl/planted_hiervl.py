"""An untrained HierVL on the planted store, and vectors made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.encoders.config import LoraConfig
from hvlm.models.aggregator import AggregatorConfig
from hvlm.models.clip_encoder import ClipEncoderConfig
from hvlm.models.hiervl import HierVLConfig
from infra.config_io import dump_config
from infra.tracking import TrackingConfig, open_run
from pipelines.evaluation.hiervl.places import Place, VideoVectors
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.store.manifest import open_manifest
from pipelines.training.checkpoints import Checkpoint, CheckpointContent, CheckpointInfo, save_checkpoint
from pipelines.training.hiervl.config import HierVLTextConfig, HierVLTrainConfig
from pipelines.training.hiervl.model import build_model
from tests.pipelines.evaluation.planted_store import CLIP, clip_column

FRAMES = 2


def make_checkpoint(store_uri: str, output: Path, lora: LoraConfig | None = None) -> Checkpoint:
    """Write a checkpoint of an untrained HierVL of 4 clips of 2 frames, and its MLflow run beside it.

    `lora`: adapters of its text tower, which change what the tower says.
    """
    torch.manual_seed(0)
    tracking = TrackingConfig(uri=f"sqlite:///{output}/mlflow.db", experiment="test", system_metrics_interval_s=0)
    config = HierVLTrainConfig(
        store_uri=store_uri,
        output_uri=str(output),
        model=HierVLConfig(
            clip=ClipEncoderConfig(hidden=16),
            aggregator=AggregatorConfig(num_clips=4, num_layers=1, num_heads=2),
            dim=8,
        ),
        sampling=ParentSamplingConfig(num_clips=4, num_frames=FRAMES, window_s=4.0),
        text=HierVLTextConfig(encoder=CLIP, lora=lora),
        tracking=tracking,
    )
    manifest = open_manifest(store_uri)
    widths = tuple(int(manifest.rows(name)["dim"][0]) for name in manifest.encoders)
    tracker = open_run(tracking, str(output / "run.json"))
    info = CheckpointInfo(
        config=dump_config(config),
        encoders=tuple(manifest.encoders.items()),
        d_in=widths,
        d_text=clip_column().dim,
        store_uri=store_uri,
        store_version=manifest.version,
        manifest_hash=manifest.manifest_hash,
        step=2,
        git_commit="abc",
        run_id=tracker.run_id,
    )
    model = build_model(config.model, config.text, sum(widths), clip_column().dim)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)
    content = CheckpointContent(model=model.state_dict(), trainer={}, info=info, metrics={}, score=1.0)
    saved = save_checkpoint(str(output), content)
    tracker.log_checkpoint(2, saved.uri, {}, best=True)
    tracker.finish("FINISHED")
    return saved


def video(video_id: str, vectors: dict[Place, Any], **changes: Any) -> VideoVectors:
    """A video of 10 s of the split val; ours and raw have the same vectors unless `raw` says others."""
    ours = {place: np.asarray(vector, np.float32) for place, vector in vectors.items()}
    raw = {place: np.asarray(vector, np.float32) for place, vector in changes.pop("raw", vectors).items()}
    values: dict[str, Any] = {
        "key": f"key-{video_id}",
        "video_id": video_id,
        "split": "val",
        "duration_s": 10.0,
        "num_rows": 10,
        "num_bad_rows": 0,
        "span_s": (0.0, 10.0),
        "vectors": {"ours": ours, "raw": raw},
    }
    return VideoVectors(**(values | changes))


def split_vectors(videos: list[VideoVectors], texts: dict[str, Any], width: int) -> SplitVectors:
    """The split val with the same texts for both kinds, all columns of raw beside them."""
    of_kind = {text: np.asarray(vector, np.float32) for text, vector in texts.items()}
    return SplitVectors("val", videos, {"ours": of_kind, "raw": of_kind}, slice(0, width))
