from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.models.aggregator import AggregatorConfig
from hvlm.models.clip_encoder import ClipEncoderConfig
from hvlm.models.hiervl import HierVLConfig, ScheduleConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig
from pipelines.training.config import CheckpointConfig, OptimizerConfig
from pipelines.training.hiervl.config import HierVLTextConfig, HierVLTrainConfig, LevelBatchingConfig
from tests.pipelines.training.world import CLIP, make_store, parts, two_levels


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Videos with captions and summaries; two of forty have neither."""
    return make_store(tmp_path_factory.mktemp("hiervl") / "store", metadata=two_levels)


@pytest.fixture(scope="session")
def parts_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Videos with two annotators' passes and summaries of their parts."""
    return make_store(tmp_path_factory.mktemp("hiervl") / "parts", 30, metadata=parts, rows=(16, 30))


@pytest.fixture
def make_config(store: str, tracking: TrackingConfig, tmp_path: Path) -> Callable[..., HierVLTrainConfig]:
    """A tiny HierVL: 4 clips of 2 frames, width 16, a parent step after every 2 child steps."""

    def make(name: str = "out", **changes: Any) -> HierVLTrainConfig:
        values: dict[str, Any] = {
            "store_uri": store,
            "output_uri": str(tmp_path / name),
            "epochs": 3,
            "log_every_steps": 3,
            "model": HierVLConfig(
                clip=ClipEncoderConfig(hidden=16),
                aggregator=AggregatorConfig(num_clips=4, num_layers=2, num_heads=2, stochastic_depth=0.0),
                dim=16,
                schedule=ScheduleConfig(child_steps=2),
            ),
            "sampling": ParentSamplingConfig(num_clips=4, num_frames=2, window_s=2.0),
            "text": HierVLTextConfig(encoder=CLIP),
            "batching": LevelBatchingConfig(child_batch_size=8, parent_batch_size=4),
            "optimizer": OptimizerConfig(lr=3e-3),
            "checkpoint": CheckpointConfig(every_steps=6),
            "tracking": tracking,
            "cluster": ClusterConfig(num_cpus=2, object_store_memory_bytes=200_000_000),
        }
        return HierVLTrainConfig(**(values | changes))

    return make
