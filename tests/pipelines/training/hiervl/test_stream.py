import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hvlm.models.hiervl import HierVLConfig, ScheduleConfig
from pipelines.training.config import StreamConfig
from pipelines.training.hiervl.config import LevelBatchingConfig
from pipelines.training.hiervl.samples import ParentPart
from pipelines.training.hiervl.stream import LevelBatches, LevelPlan, LevelStream
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.stream import Prefetcher
from pipelines.training.system import RankContext

STEPS = 20
MakeJob = Callable[..., TrainJob]


def system_of(job: TrainJob, rank: int = 0, world_size: int = 1) -> HierVLSystem:
    system = open_system(job, RankContext(rank, world_size))
    assert isinstance(system, HierVLSystem)
    return system


def read(job: TrainJob, rank: int = 0, world_size: int = 1, first: int = 0) -> list[LevelBatches]:
    return list(system_of(job, rank, world_size).stream(first, STEPS - first))


def flat(step: LevelBatches) -> list[object]:
    """Everything of a step but its count of bad rows, as plain values."""
    return [
        each.tolist() if isinstance(each, torch.Tensor) else each
        for part in step.parts
        for value in part[:-1]
        for each in (value if isinstance(value, tuple) else [value])
    ]


@pytest.fixture
def job(make_job: MakeJob) -> TrainJob:
    return make_job(epochs=20)


@pytest.mark.parametrize("summaries", ["of_wholes", "of_parts"])
def test_1_2_and_4_ranks_read_the_same_global_batches(make_job: MakeJob, parts_store: str, summaries: str) -> None:
    job = make_job(epochs=20, **({"store_uri": parts_store} if summaries == "of_parts" else {}))
    alone = read(job)
    kinds = ["parent" if isinstance(step.parts[0], ParentPart) else "child" for step in alone]
    assert kinds == ["child", "child", "parent"] * 6 + ["child", "child"]
    for world_size in (2, 4):
        ranks = [read(job, rank, world_size) for rank in range(world_size)]
        for step, whole in enumerate(alone):
            parts = [flat(rank[step]) for rank in ranks]
            together = [list(itertools.chain(*values)) for values in zip(*parts, strict=True)]  # type: ignore[call-overload]
            assert together == flat(whole)


def test_alternating_leaves_no_batch_of_either_level_out(job: TrainJob) -> None:
    """Each level goes on where it stopped, as if it were trained alone."""
    system = system_of(job)
    both = [step.parts[0].keys for step in system.stream(0, STEPS)]
    plan = system.stream(0, STEPS)._plan
    for kind, found in (("child", [k for i, k in enumerate(both) if i % 3 < 2]), ("parent", both[2::3])):
        alone = LevelStream(system.train, replace(plan, schedule=ScheduleConfig(kind=kind)))  # type: ignore[arg-type]
        assert [step.parts[0].keys for step in alone][: len(found)] == found


@pytest.mark.parametrize("kind", ["alternate", "sum"])
def test_a_start_at_any_step_is_the_tail(make_job: MakeJob, kind: str) -> None:
    model = make_job().config.model  # type: ignore[attr-defined]
    assert isinstance(model, HierVLConfig)
    aggregator, clip = model.aggregator, model.clip
    changed = HierVLConfig(aggregator=aggregator, clip=clip, dim=16, schedule=ScheduleConfig(kind=kind, child_steps=2))  # type: ignore[arg-type]
    job = make_job("tail", epochs=20, model=changed)
    whole = [flat(step) for step in read(job)]
    for first in (1, 2, 3, 11, 18):
        assert [flat(step) for step in read(job, first=first)] == whole[first:]


def test_a_level_repeats_nothing_within_its_epoch_and_shuffles_anew_in_the_next() -> None:
    shards = np.repeat([0, 1, 2], 7)
    plan = LevelPlan(shards, 4, 8, seed=3)
    assert plan.batches_per_epoch == 5
    epochs = []
    for epoch in range(2):
        parts = [plan.part(epoch * 5 + step, 0, 1) for step in range(5)]
        assert {number for _, number in parts} == {epoch}
        epochs.append([sample for samples, _ in parts for sample in samples])
        assert len(set(epochs[-1])) == 20
    assert epochs[0] != epochs[1]
    halves = [plan.part(7, rank, 2)[0] for rank in (0, 1)]
    assert halves[0] + halves[1] == plan.part(7, 0, 1)[0]


@pytest.mark.parametrize("config", [StreamConfig(prefetch_batches=1), StreamConfig(read_threads=3, cache_mib=0)])
def test_reading_ahead_and_with_threads_changes_nothing(job: TrainJob, config: StreamConfig) -> None:
    other = replace(job, config=replace(job.config, stream=config))
    found = list(Prefetcher(system_of(other).stream(0, 7), config, pin=False))
    assert [flat(step) for step in found] == [flat(step) for step in read(job)[:7]]
    assert found[0].to(torch.device("cpu")).num_bad_rows == 0


def test_scenes_bring_another_caption_of_the_same_video_and_bin(make_job: MakeJob) -> None:
    job = make_job(
        "scenes", epochs=20, batching=LevelBatchingConfig(child_batch_size=8, parent_batch_size=4, scene_bin_s=5.0)
    )
    plain = read(make_job("plain", epochs=20))
    levels = system_of(job).train.levels
    neighbours: dict[str, set[str]] = {}
    alone = 0
    for step, other in zip(read(job), plain, strict=True):
        part = step.parts[0]
        if isinstance(part, ParentPart):
            assert flat(step) == flat(other)
            continue
        assert part.keys[:8] == other.parts[0].keys and part.batch.clip_BTI.shape[0] == part.verbs_BA.shape[0] == 16
        for own, extra, real in zip(part.keys[:8], part.keys[8:], part.batch.frame_mask_BT[8:].any(1), strict=True):
            (video, caption), (its_video, its_caption) = (name.split("#") for name in (own, extra))
            spans = [levels.videos[video].captions[int(number)].span_s for number in (caption, its_caption)]
            bins = {int(sum(span_s) / 2 // 5.0) for span_s in spans}
            middles = [sum(each.span_s) / 2 // 5.0 for each in levels.videos[video].captions]
            assert video == its_video and len(bins) == 1
            assert (own != extra) == bool(real) == (middles.count(middles[int(caption)]) > 1)
            alone += not real
            if real:
                neighbours.setdefault(own, set()).add(extra)
    assert alone > 0 and max(len(each) for each in neighbours.values()) > 1  # drawn anew each time


def test_a_caption_that_is_alone_in_its_scene_changes_no_loss(make_job: MakeJob) -> None:
    """Bins of a millisecond: every neighbour is padding, and the loss is that of a batch without neighbours."""
    losses = []
    for name, bin_s in (("without", None), ("alone", 0.001), ("together", 60.0)):
        batching = LevelBatchingConfig(child_batch_size=8, parent_batch_size=4, scene_bin_s=bin_s)
        system = system_of(make_job(name, epochs=20, batching=batching))
        torch.manual_seed(0)
        model = system.build_model()
        (result,) = system.passes(model, next(iter(system.stream(0, 1))), 0)
        losses.append(float(result.total.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and abs(losses[2] - losses[0]) > 0.01


def test_the_parts_of_a_step_are_its_rows(job: TrainJob) -> None:
    for step in read(job)[:3]:
        pieces = [flat(piece) for piece in step.split(2)]
        assert all(len(values[0]) == len(flat(step)[0]) // 2 for values in pieces)  # type: ignore[arg-type]
        together = [list(itertools.chain(*values)) for values in zip(*pieces, strict=True)]  # type: ignore[call-overload]
        assert together == flat(step)
