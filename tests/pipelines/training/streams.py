"""The stream of the tests' store, for the tests of what every system shares and for those of HierarchicalVLM's."""

import torch

from hvlm.data.batching import BatchingConfig
from hvlm.data.collate import Batch
from pipelines.training.config import StreamConfig
from pipelines.training.hierarchical_vlm.stream import StreamPlan, TrainStream
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.text import TextTable

BATCHING = BatchingConfig(global_batch_size=4, max_rows=20)


def make_stream(
    table: SampleTable,
    texts: TextTable | None = None,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    num_steps: int = 10,
    config: StreamConfig | None = None,
) -> TrainStream:
    config = config or StreamConfig()
    plan = StreamPlan(
        batching=BATCHING,
        seed=3,
        rank=rank,
        world_size=world_size,
        first_step=start,
        num_steps=num_steps,
    )
    return TrainStream(FeatureReader(table, config), texts, plan, config)


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)
