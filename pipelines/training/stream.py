"""Reading for training: videos from byte ranges of shards, joined over encoders, and batches ahead of the step.

Every worker reads its own rows of every global batch. The systems plan the order from the manifest alone
(`hvlm.data.batching`), so it is the same for any number of workers and reading processes, and a run continues at any
step.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import polars as pl
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hvlm.data.batching import SampleIndex, index_samples
from hvlm.data.collate import EncoderRows, VideoRows, join_encoders
from pipelines.store.manifest import Manifest, read_sample
from pipelines.training.config import StreamConfig
from pipelines.training.system import B


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


def steps_of_this_process(num_steps: int) -> range:
    """Return the steps that this reading process prepares: with several, they take turns step by step."""
    worker = get_worker_info()
    return range(worker.id, num_steps, worker.num_workers) if worker else range(num_steps)


class Prefetcher(Generic[B]):
    """Iterates a stream ahead of its consumer: in a thread, or in `config.num_processes` processes.

    Args:
        stream: what to read.
        config: how far ahead, and by whom.
        pin: put batches into page-locked memory (for a GPU).
    """

    def __init__(self, stream: IterableDataset[B], config: StreamConfig, *, pin: bool) -> None:
        self._stream, self._config, self._pin = stream, config, pin
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[B]:
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

    def _from_thread(self) -> Iterator[B]:
        ready: queue.Queue[B | BaseException | None] = queue.Queue(self._config.prefetch_batches)
        thread = threading.Thread(target=self._fill, args=(ready,), name="batch-reader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stop.set()

    def _fill(self, ready: "queue.Queue[B | BaseException | None]") -> None:
        try:
            for batch in self._stream:
                if not self._put(ready, batch.pin_memory() if self._pin else batch):
                    return
            self._put(ready, None)
        except BaseException as error:  # the consumer raises it
            self._put(ready, error)

    def _put(self, ready: "queue.Queue[B | BaseException | None]", item: B | BaseException | None) -> bool:
        """Wait for room; False when the consumer has gone."""
        while not self._stop.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
