from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvlm.data.batching import BatchingConfig
from hvlm.models.baselines import MoCoConfig
from hvlm.models.flat import FlatPoolingConfig, RowEncoderConfig
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig
from pipelines.training.baselines.config import MoCoTrainConfig, SupervisedTrainConfig
from pipelines.training.config import CheckpointConfig, OptimizerConfig

ENCODERS = {
    "direct": TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=32, dropout=0.1),
    "moco": TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=32, dropout=0.1),
    "tsn": RowEncoderConfig(kind="rows", d_model=16, d_hidden=32),
}


@pytest.fixture
def make_config(store: str, tracking: TrackingConfig, tmp_path: Path) -> Callable[..., Any]:
    """A tiny training of the baseline that `name` begins with: moco, direct or tsn."""

    def make(name: str = "out", **changes: Any) -> MoCoTrainConfig | SupervisedTrainConfig:
        kind = name.partition("-")[0]
        segments = FlatPoolingConfig(kind="segments", num_segments=4)
        model = HierarchicalVLMConfig(
            encoder=ENCODERS[kind],
            projector=ProjectorConfig(dim=8),
            pyramid=segments if kind == "tsn" else FlatPoolingConfig(kind="mean"),
            alignment=AlignmentConfig(enabled=False),
        )
        values: dict[str, Any] = {
            "store_uri": store,
            "output_uri": str(tmp_path / name),
            "epochs": 6,
            "log_every_steps": 3,
            "model": model,
            "batching": BatchingConfig(global_batch_size=4, max_rows=24),
            "optimizer": OptimizerConfig(lr=3e-3),
            "checkpoint": CheckpointConfig(every_steps=6),
            "tracking": tracking,
            "cluster": ClusterConfig(num_cpus=2, object_store_memory_bytes=200_000_000),
        }
        if kind == "moco":
            values["moco"] = MoCoConfig(momentum=0.9, queue_size=12)
            return MoCoTrainConfig(**(values | changes))
        return SupervisedTrainConfig(**(values | changes))

    return make
