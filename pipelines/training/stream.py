"""The stream of batches: byte ranges of shards, joined over encoders, in the order of `hvlm.data.batching`.

Every worker reads its own rows of every global batch, ahead of the training step. The order is planned from the
manifest alone, so it is the same for any number of workers and reading processes, and a run continues at any step.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hvlm.data.batching import (
    BatchingConfig,
    BatchPlan,
    EpochPlan,
    Position,
    SampleIndex,
    advance,
    index_samples,
    plan_epoch,
    rank_part,
    steps_per_epoch,
)
from hvlm.data.collate import Batch, EncoderRows, TextRow, VideoRows, collate, join_encoders
from pipelines.store.manifest import Manifest, read_sample
from pipelines.training.config import StreamConfig
from pipelines.training.text import TextTable

_TEXT_STREAM = 1  # the choice of texts has its own random stream, so that it does not move the batches


@dataclass(frozen=True, slots=True)
class SampleTable:
    """The samples of one split in the canonical order. `rows[encoder][i]` says where sample i lies (`read_sample`)."""

    store_uri: str
    index: SampleIndex
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, manifest: Manifest, split: str) -> "SampleTable":
        """Return the samples of a split; a sample's length is that of the first encoder."""
        first = next(iter(manifest.encoders))
        # Read from disk order of the shard names: sorted keys are the canonical order of `index_samples`.
        frames = {name: manifest.rows(name).filter(pl.col("split") == split).sort("key") for name in manifest.encoders}
        frame = frames[first]
        index = index_samples(frame["key"].to_list(), frame["num_rows"].to_list(), frame["shard"].to_list())
        where = ["key", "gen", "shard", "offset", "size", "sample_sha256"]
        return cls(manifest.store_uri, index, {name: each.select(where).to_dicts() for name, each in frames.items()})

    def __len__(self) -> int:
        return len(self.index.keys)


class FeatureReader:
    """Reads videos of a table; the most recently used ones stay in memory, up to `cache_mib`."""

    def __init__(self, table: SampleTable, config: StreamConfig) -> None:
        self.table = table
        self._config = config
        self._capacity_bytes, self._held_bytes = config.cache_mib * 2**20, 0
        self._cache: OrderedDict[int, VideoRows] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureReader, (self.table, self._config)  # a reading process starts with an empty memory

    def video(self, sample: int) -> VideoRows:
        """Return all rows of a sample, by its position in the table."""
        with self._lock:
            known = self._cache.pop(sample, None)
            if known is not None:
                self._cache[sample] = known
                return known
        parts = []
        for rows in self.table.rows.values():
            features, meta = read_sample(self.table.store_uri, rows[sample])
            parts.append(EncoderRows(features, np.asarray(meta.timestamps_s, np.float64), meta.clip_s, meta.reach_s))
        video = join_encoders(parts, l2_normalise=self._config.l2_normalise)
        self._keep(sample, video)
        return video

    def _keep(self, sample: int, video: VideoRows) -> None:
        with self._lock:
            if sample in self._cache or video.features_TI.nbytes > self._capacity_bytes:
                return
            self._cache[sample] = video
            self._held_bytes += video.features_TI.nbytes
            while self._held_bytes > self._capacity_bytes:
                self._held_bytes -= self._cache.popitem(last=False)[1].features_TI.nbytes


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
    """Which batches a rank reads: `num_steps` of them from `start`."""

    batching: BatchingConfig
    seed: int
    rank: int
    world_size: int
    start: Position
    num_steps: int


class TrainStream(IterableDataset[Batch]):
    """This rank's part of every global batch, in order; reading processes take turns step by step."""

    def __init__(self, reader: FeatureReader, texts: TextTable | None, plan: StreamPlan, config: StreamConfig) -> None:
        super().__init__()
        self._reader, self._texts, self._plan, self._config = reader, texts, plan, config
        self._epoch: tuple[int, EpochPlan, NDArray[np.int64]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        position = self._plan.start
        per_epoch = steps_per_epoch(len(self._reader.table), self._plan.batching)
        threads = self._config.read_threads
        pool = ThreadPoolExecutor(threads) if threads > 1 else None
        try:
            for step in range(self._plan.num_steps):
                if step % stride == first:
                    yield self._batch(position, pool)
                position = advance(position, per_epoch)
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


class Prefetcher:
    """Iterates a stream ahead of its consumer: in a thread, or in `config.num_processes` processes.

    Args:
        stream: what to read.
        config: how far ahead, and by whom.
        pin: put batches into page-locked memory (for a GPU).
    """

    def __init__(self, stream: TrainStream, config: StreamConfig, *, pin: bool) -> None:
        self._stream, self._config, self._pin = stream, config, pin
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Batch]:
        if self._config.num_processes:
            # spawn: a fork of a process with gloo, Ray and OpenMP threads may inherit a lock that nobody releases.
            yield from DataLoader(
                self._stream,
                batch_size=None,
                num_workers=self._config.num_processes,
                prefetch_factor=self._config.prefetch_batches,
                pin_memory=self._pin,
                multiprocessing_context="spawn",
            )
            return
        yield from self._from_thread()

    def close(self) -> None:
        """Let the reading thread end."""
        self._stop.set()

    def _from_thread(self) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(self._config.prefetch_batches)
        thread = threading.Thread(target=self._fill, args=(ready,), name="batch-reader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stop.set()

    def _fill(self, ready: "queue.Queue[Batch | BaseException | None]") -> None:
        try:
            for batch in self._stream:
                if not self._put(ready, batch.pin_memory() if self._pin else batch):
                    return
            self._put(ready, None)
        except BaseException as error:  # the consumer raises it
            self._put(ready, error)

    def _put(self, ready: "queue.Queue[Batch | BaseException | None]", item: Batch | BaseException | None) -> bool:
        """Wait for room; False when the consumer has gone."""
        while not self._stop.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


def _part(video: VideoRows, first_row: int, num_rows: int) -> VideoRows:
    """Return a video's planned rows; where rows were left out as not finite, the last ones that there are."""
    first = min(int(first_row), max(0, len(video.times_s) - int(num_rows)))
    rows = slice(first, first + int(num_rows))
    return VideoRows(video.features_TI[rows], video.times_s[rows], video.num_bad_rows)
