"""Which samples form which batch: a pure function of (samples, seed, epoch), so that no number of workers and no
restart changes it.

An epoch is planned from keys, lengths and shards alone, without reading a feature:

    shards shuffled ─► samples of consecutive shards in windows, shuffled ─► sorted by length inside the window ─► cut
    into global batches ─► batch order shuffled inside the window

Rank r of W reads rows [r·G/W, (r+1)·G/W) of every global batch of G and pads to the longest row of the *global*
batch, so all ranks take equal steps with equal shapes. The position of a run is (epoch, step): continuing is planning
the epoch again and starting at `step`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.config import Config, require
from hvlm.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingConfig(Config):
    """How samples are put together.

    `global_batch_size`: videos per step over all ranks. `window`: samples that are shuffled together; it bounds how
    far apart in the store the samples of a batch lie. `max_rows`: a longer video gives a random contiguous part of
    that many rows, another one in each epoch.
    `pad_multiple`: padded lengths are multiples of it (fewer distinct shapes).
    """

    global_batch_size: int = 64
    window: int = 4096
    max_rows: int = 1024
    pad_multiple: int = 8

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "window", "max_rows", "pad_multiple"):
            value = getattr(self, name)
            require(value >= 1, what=f"batching.{name}", got=value, expected="1 or more", do=f"raise batching.{name}")


class SampleIndex(NamedTuple):
    """What the plan knows of the samples, in the canonical order (sorted by key): `keys`, rows of each, number of its
    shard."""

    keys: tuple[str, ...]
    lengths: NDArray[np.int64]
    shards: NDArray[np.int64]


class Position(NamedTuple):
    """Where a run stands in the data: `step` batches of epoch `epoch` are done."""

    epoch: int
    step: int


class BatchPlan(NamedTuple):
    """One global batch: positions in the `SampleIndex`, first row and number of rows of each sample, padded length."""

    samples: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    num_rows: NDArray[np.int64]
    padded_rows: int


class EpochPlan(NamedTuple):
    """All global batches of one epoch. `num_dropped` samples did not fill a last batch; other ones in another epoch."""

    batches: tuple[BatchPlan, ...]
    num_dropped: int

    @property
    def padding_share(self) -> float:
        """Share of the rows of all batches that is padding, 0 to 1."""
        padded = sum(batch.padded_rows * len(batch.samples) for batch in self.batches)
        return 1.0 - sum(int(batch.num_rows.sum()) for batch in self.batches) / padded if padded else 0.0


def index_samples(keys: Sequence[str], lengths: Sequence[int], shards: Sequence[str]) -> SampleIndex:
    """Return the samples in the canonical order, whatever order they came in.

    Raises:
        ValueError: a key twice, or a length below 1.
    """
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    ordered = tuple(keys[i] for i in order)
    if len(set(ordered)) != len(ordered):
        raise ValueError("a key occurs twice in the samples")
    rows = np.array([lengths[i] for i in order], np.int64)
    if len(rows) and rows.min() < 1:
        raise ValueError(f"sample '{ordered[int(rows.argmin())]}' has no rows")
    number = {shard: i for i, shard in enumerate(sorted(set(shards)))}
    return SampleIndex(ordered, rows, np.array([number[shards[i]] for i in order], np.int64))


def steps_per_epoch(num_samples: int, config: BatchingConfig) -> int:
    """Return the number of global batches of every epoch.

    Raises:
        UserError: fewer samples than one batch.
    """
    if num_samples < config.global_batch_size:
        raise UserError(
            what="batching.global_batch_size",
            got=config.global_batch_size,
            expected=f"at most the {num_samples} training samples of the store",
            do="lower it, or extract more videos",
        )
    return num_samples // config.global_batch_size


def plan_epoch(index: SampleIndex, config: BatchingConfig, *, seed: int, epoch: int) -> EpochPlan:
    """Return the global batches of an epoch, in order.

    Args:
        index: the training samples.
        config: sizes.
        seed: of the run.
        epoch: from 0.

    Raises:
        UserError: fewer samples than one batch.
    """
    num_steps = steps_per_epoch(len(index.keys), config)
    rng = np.random.default_rng([seed, epoch])
    lengths = np.minimum(index.lengths, config.max_rows)
    # Drawn for all samples at once: a sample's part does not depend on the batch it lands in.
    first_rows = rng.integers(0, index.lengths - lengths + 1)
    batches: list[BatchPlan] = []
    for members in _windows(index, config, rng):
        ordered = members[np.argsort(lengths[members], kind="stable")]
        cut = [ordered[i : i + config.global_batch_size] for i in range(0, len(ordered), config.global_batch_size)]
        for i in rng.permutation(len(cut)):
            longest = int(lengths[cut[i]].max())
            padded = -(-longest // config.pad_multiple) * config.pad_multiple
            # Sorted by length so far: without this permutation rank 0 would always read the short videos.
            samples = rng.permutation(cut[i])
            batches.append(BatchPlan(samples, first_rows[samples], lengths[samples], padded))
    return EpochPlan(tuple(batches), len(index.keys) - num_steps * config.global_batch_size)


def plan_evaluation(index: SampleIndex, config: BatchingConfig) -> tuple[BatchPlan, ...]:
    """Return batches that hold every sample exactly once, whole up to `max_rows` rows from the start, of like
    lengths; the last is smaller."""
    lengths = np.minimum(index.lengths, config.max_rows)
    ordered = np.argsort(lengths, kind="stable")
    plans = []
    for i in range(0, len(ordered), config.global_batch_size):
        samples = ordered[i : i + config.global_batch_size]
        padded = -(-int(lengths[samples].max()) // config.pad_multiple) * config.pad_multiple
        plans.append(BatchPlan(samples, np.zeros(len(samples), np.int64), lengths[samples], padded))
    return tuple(plans)


def rank_part(batch: BatchPlan, rank: int, world_size: int) -> BatchPlan:
    """Return the part of a global batch that a rank reads, padded like the whole.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    size = len(batch.samples)
    if size % world_size:
        raise UserError(
            what="batching.global_batch_size",
            got=size,
            expected=f"a multiple of the number of workers, {world_size}",
            do="change batching.global_batch_size or resources.num_workers",
        )
    part = slice(rank * size // world_size, (rank + 1) * size // world_size)
    return BatchPlan(batch.samples[part], batch.first_rows[part], batch.num_rows[part], batch.padded_rows)


def _windows(index: SampleIndex, config: BatchingConfig, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield shuffled groups of samples, each a whole number of batches; what is left over goes into the next group."""
    size = config.global_batch_size
    shard_rank = rng.permutation(int(index.shards.max()) + 1)
    order = np.argsort(shard_rank[index.shards], kind="stable")
    window = max(1, config.window // size) * size
    left = np.empty(0, np.int64)
    for start in range(0, len(order), window):
        group = rng.permutation(np.concatenate([left, order[start : start + window]]))
        whole = len(group) // size * size
        left = group[whole:]
        if whole:
            yield group[:whole]
