"""The stream of HierVL's steps: which level a step trains, and this rank's part of that level's global batch.

Both levels are planned as in `hvlm.data.batching`, each from its own samples with its own epochs: the schedule says
which levels a step trains and how many batches of a level came before it, so the position of both follows from the
step alone, on any number of workers and after any restart.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from hvlm.data.batching import BatchingConfig, EpochPlan, SampleIndex, plan_epoch, rank_part
from hvlm.data.hierarchy import SceneBins, sample_generator
from hvlm.models.hiervl import Level, ScheduleConfig
from pipelines.training.hiervl.config import LevelBatchingConfig
from pipelines.training.hiervl.samples import (
    ChildPart,
    ChildSample,
    Draw,
    LevelReader,
    ParentPart,
    ParentSample,
    map_tensors,
)
from pipelines.training.step import mix_seed
from pipelines.training.stream import steps_of_this_process

_LEVEL_STREAM: dict[Level, int] = {"child": 1, "parent": 2}  # each level is shuffled with its own seed


@dataclass(frozen=True, slots=True)
class LevelBatches:
    """One rank's part of the levels of a step, in the order in which they are trained."""

    parts: tuple[ChildPart | ParentPart, ...]

    @property
    def num_bad_rows(self) -> int:
        """Rows of features that were left out as not finite."""
        return sum(part.num_bad_rows for part in self.parts)

    def to(self, device: torch.device) -> "LevelBatches":
        """Return the batches on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "LevelBatches":
        """Return the batches in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def split(self, count: int) -> list["LevelBatches"]:
        """Return every level in `count` equal parts; the bad rows of all stand with each."""
        return [LevelBatches(tuple(_piece(part, number, count) for part in self.parts)) for number in range(count)]

    def _map(self, function: Callable[[Tensor], Tensor]) -> "LevelBatches":
        return LevelBatches(tuple(map_tensors(part, function) for part in self.parts))


P = TypeVar("P", bound=ChildPart | ParentPart)


def _piece(part: P, number: int, count: int) -> P:
    size = len(part.keys) // count
    rows = slice(number * size, (number + 1) * size)
    return map_tensors(part, lambda tensor: tensor[rows])._replace(keys=part.keys[rows])  # type: ignore[return-value]


class LevelPlan:
    """The global batches of one level, epoch after epoch; what does not fill a last batch is left to another epoch.

    Args:
        shards: number of the shard of each sample: samples of a shard are read close together.
        batch_size: of the global batch. window: samples that are shuffled together.
        seed: of the level.
    """

    def __init__(self, shards: NDArray[np.int64], batch_size: int, window: int, seed: int) -> None:
        # Every sample counts as one row: a clip has a fixed number of frames, so there are no lengths to sort by.
        self._index = SampleIndex(("",) * len(shards), np.ones(len(shards), np.int64), shards)
        self._batching = BatchingConfig(global_batch_size=batch_size, window=window, max_rows=1, pad_multiple=1)
        self.batches_per_epoch = len(shards) // batch_size
        self.seed = seed
        self._epoch: tuple[int, EpochPlan] | None = None

    def part(self, number: int, rank: int, world_size: int) -> tuple[list[int], int]:
        """Return the samples of a rank in batch `number` since the start of the training, and that batch's epoch."""
        epoch, step = divmod(number, self.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, plan_epoch(self._index, self._batching, seed=self.seed, epoch=epoch)
        plan = rank_part(self._epoch[1].batches[step], rank, world_size)
        return [int(sample) for sample in plan.samples], epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelStreamPlan:
    """Which steps a rank reads: `num_steps` of them from the training's step `first_step`."""

    schedule: ScheduleConfig
    batching: LevelBatchingConfig
    summaries_as_captions: bool
    seed: int
    rank: int
    world_size: int
    first_step: int
    num_steps: int
    read_threads: int = 1


class LevelStream(IterableDataset[LevelBatches]):
    """This rank's part of every step."""

    def __init__(self, reader: LevelReader, plan: LevelStreamPlan) -> None:
        super().__init__()
        self._reader, self._plan = reader, plan
        self._child: Sequence[ChildSample] = reader.child_samples(with_summaries=plan.summaries_as_captions)
        self._parent: Sequence[ParentSample] = reader.parent_samples()
        bin_s = plan.batching.scene_bin_s
        self._scenes = None if bin_s is None else _scenes(reader, self._child, bin_s)

    def __iter__(self) -> Iterator[LevelBatches]:
        plan = self._plan
        shards = self._reader.features.table.index.shards
        videos: dict[Level, list[int]] = {
            "child": [each.video for each in self._child],
            "parent": [each.video for each in self._parent],
        }
        sizes: dict[Level, int] = {"child": plan.batching.child_batch_size, "parent": plan.batching.parent_batch_size}
        plans = {
            level: LevelPlan(
                shards[videos[level]], sizes[level], plan.batching.window, mix_seed(plan.seed, _LEVEL_STREAM[level])
            )
            for level in videos
        }
        pool = ThreadPoolExecutor(plan.read_threads) if plan.read_threads > 1 else None
        try:
            for number in steps_of_this_process(plan.num_steps):
                step = plan.first_step + number
                yield LevelBatches(
                    tuple(
                        self._read(level, plans[level], plan.schedule.batches_before(step, level), pool)
                        for level in plan.schedule.levels(step)
                    )
                )
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(
        self, level: Level, plan: LevelPlan, number: int, pool: ThreadPoolExecutor | None
    ) -> ChildPart | ParentPart:
        chosen, epoch = plan.part(number, self._plan.rank, self._plan.world_size)
        draw = Draw(plan.seed, epoch)
        if level == "parent":
            return self._reader.parent([self._parent[i] for i in chosen], draw, pool)
        samples = [self._child[i] for i in chosen]
        if self._scenes is None:
            return self._reader.child(samples, draw, pool)
        extras = [self._neighbour(self._scenes, i, draw) for i in chosen]
        part = self._reader.child([*samples, *(b or a for a, b in zip(samples, extras, strict=True))], draw, pool)
        # All ranks must have equally many rows, so a caption that is alone brings padding: no frame of it is real.
        part.batch.frame_mask_BT[[len(samples) + i for i, extra in enumerate(extras) if extra is None]] = False
        return part

    def _neighbour(self, scenes: SceneBins, number: int, draw: Draw) -> ChildSample | None:
        """Another caption of the scene of caption `number`; None where it is alone."""
        video, caption = self._child[number]
        rng = sample_generator(draw.seed, draw.epoch, f"scene:{self._reader.keys[video]}#{caption}")
        drawn = scenes.draw(number, rng)
        return None if drawn is None else self._child[drawn]


def _scenes(reader: LevelReader, samples: Sequence[ChildSample], bin_s: float) -> SceneBins:
    """A caption belongs to the bin in which the middle of its clip lies: there its narrator spoke."""
    keys = [reader.keys[sample.video] for sample in samples]
    spans_s = [
        reader.levels.videos[key].captions[sample.caption].span_s for key, sample in zip(keys, samples, strict=True)
    ]
    return SceneBins(keys, [(start + end) / 2 for start, end in spans_s], bin_s)
