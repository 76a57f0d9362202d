"""HierarchicalVLM's batches: whole videos, each with one of its texts, in the order of `hvlm.data.batching`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from hvlm.data.batching import (
    BatchingConfig,
    BatchPlan,
    EpochPlan,
    Position,
    plan_epoch,
    rank_part,
    steps_per_epoch,
)
from hvlm.data.collate import Batch, TextRow, VideoRows, collate
from pipelines.training.config import StreamConfig
from pipelines.training.stream import FeatureReader, steps_of_this_process
from pipelines.training.text import TextTable

_TEXT_STREAM = 1  # the choice of texts has its own random stream, so that it does not move the batches


def read_batch(
    reader: FeatureReader, plan: BatchPlan, texts: list[TextRow] | None, pool: ThreadPoolExecutor | None = None
) -> Batch:
    """Return the videos of a plan as one padded batch."""
    samples = [int(sample) for sample in plan.samples]
    videos = list((pool.map if pool else map)(reader.video, samples))
    parts = [_part(*each) for each in zip(videos, plan.first_rows, plan.num_rows, strict=True)]
    return collate([reader.table.index.keys[sample] for sample in samples], parts, texts, plan.padded_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """Which batches a rank reads: `num_steps` of them from the training's step `first_step`."""

    batching: BatchingConfig
    seed: int
    rank: int
    world_size: int
    first_step: int
    num_steps: int


class TrainStream(IterableDataset[Batch]):
    """This rank's part of every global batch, in order."""

    def __init__(self, reader: FeatureReader, texts: TextTable | None, plan: StreamPlan, config: StreamConfig) -> None:
        super().__init__()
        self._reader, self._texts, self._plan, self._config = reader, texts, plan, config
        self._epoch: tuple[int, EpochPlan, NDArray[np.int64]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        per_epoch = steps_per_epoch(len(self._reader.table), self._plan.batching)
        threads = self._config.read_threads
        pool = ThreadPoolExecutor(threads) if threads > 1 else None
        try:
            for step in steps_of_this_process(self._plan.num_steps):
                yield self._batch(Position(*divmod(self._plan.first_step + step, per_epoch)), pool)
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, position: Position, pool: ThreadPoolExecutor | None) -> Batch:
        plan, choices = self._epoch_plan(position.epoch)
        part = rank_part(plan.batches[position.step], self._plan.rank, self._plan.world_size)
        texts = None
        if self._texts is not None:
            keys = self._reader.table.index.keys
            texts = [self._texts.row(keys[int(sample)], int(choices[int(sample)])) for sample in part.samples]
        return read_batch(self._reader, part, texts, pool)

    def _epoch_plan(self, epoch: int) -> tuple[EpochPlan, NDArray[np.int64]]:
        if self._epoch is None or self._epoch[0] != epoch:
            index, seed = self._reader.table.index, self._plan.seed
            plan = plan_epoch(index, self._plan.batching, seed=seed, epoch=epoch)
            choices = np.random.default_rng([seed, epoch, _TEXT_STREAM]).integers(0, 2**31, len(index.keys))
            self._epoch = epoch, plan, choices
        return self._epoch[1], self._epoch[2]


def _part(video: VideoRows, first_row: int, num_rows: int) -> VideoRows:
    """Return a video's planned rows; where rows were left out as not finite, the last ones that there are."""
    first = min(int(first_row), max(0, len(video.times_s) - int(num_rows)))
    rows = slice(first, first + int(num_rows))
    return VideoRows(video.features_TI[rows], video.times_s[rows], video.num_bad_rows)
