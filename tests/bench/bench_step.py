"""Where the time of a training step goes, for both systems, and the stream against a raw read of its shards.

    python -m tests.bench.bench_step             # some minutes on 2 cores; part of `make bench`
    python -m tests.bench.bench_step --steps 10  # shorter

Steps: 1 rank, then 2 and 4 where there are so many cores (gloo, one thread each), on planted features of two encoders
(512 and 512 wide), 160 videos of 20 to 60 s. The global batch is the same: `efficiency` is the time of one rank over
that of n, over n. Milliseconds per step, means over the steps after the first six
(HierVL takes five child steps, then a parent step):
  data       waiting for the batch, which a thread reads ahead      forward    of the model, and the losses
  gather     of the embeddings of all ranks (0 with one)            backward   with DDP's mean of the gradients
  optimizer  clipping and AdamW
Stream: batches of whole videos read cold (nothing kept in memory) by a thread, by one process and by one per core, and
the same shard files read from start to end. GB/s are of stored bytes; for both the files are in the page cache.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from hvlm.data.batching import BatchingConfig
from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.models.aggregator import AggregatorConfig
from hvlm.models.clip_encoder import ClipEncoderConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.hiervl import HierVLConfig, ScheduleConfig
from infra.tracking import TrackingConfig
from pipelines.training import gather
from pipelines.training.config import StreamConfig
from pipelines.training.hierarchical_vlm.stream import StreamPlan, TrainStream
from pipelines.training.hiervl.config import HierVLTextConfig, HierVLTrainConfig, LevelBatchingConfig
from pipelines.training.job import TrainJob
from pipelines.training.prepare import prepare
from pipelines.training.registry import open_system
from pipelines.training.state import load_state, set_learning_rate
from pipelines.training.stream import FeatureReader, Prefetcher, SampleTable
from pipelines.training.system import RankContext
from tests.bench.record import record
from tests.pipelines.training.world import CLIP, encode_text, make_store, train_config, two_levels

DIMS = {"clip": 512, "c3d": 512}
WARM_UP = 6  # one cycle of HierVL's schedule
PARTS = ("data", "forward", "gather", "backward", "optimizer")


class Clock:
    """Seconds by part of the step that runs."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def start_step(self) -> None:
        self.steps.append(dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.steps[-1][part] += time.perf_counter() - started

    def time_gathers(self) -> None:
        """From here on every gather is timed by itself."""
        plain = gather._all_gather

        def timed(x: Tensor) -> Tensor:
            with self.timing("gather"):
                return plain(x)

        gather._all_gather = timed


def make_jobs(folder: Path, steps: int) -> dict[str, TrainJob]:
    """One training of each system on one planted store with captions, summaries and labels."""
    store = make_store(folder / "store", 160, metadata=two_levels, rows=(40, 120), dims=DIMS, shard_bytes=4 * 2**20)
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", system_metrics_interval_s=0)
    whole = train_config(
        store,
        folder / "hierarchical_vlm",
        epochs=10_000,
        max_steps=steps,
        model=HierarchicalVLMConfig(encoder="tiny"),
        batching=BatchingConfig(global_batch_size=16, max_rows=256),
        tracking=tracking,
    )
    levels = HierVLTrainConfig(
        store_uri=store,
        output_uri=str(folder / "hiervl"),
        epochs=10_000,
        max_steps=steps,
        model=HierVLConfig(
            dim=64,
            clip=ClipEncoderConfig(hidden=256),
            aggregator=AggregatorConfig(num_clips=8, num_layers=2, num_heads=4),
            schedule=ScheduleConfig(child_steps=5),
        ),
        sampling=ParentSamplingConfig(num_clips=8, num_frames=4, window_s=4.0),
        text=HierVLTextConfig(encoder=CLIP),
        batching=LevelBatchingConfig(child_batch_size=64, parent_batch_size=16),
        tracking=tracking,
    )
    return {"hierarchical_vlm": prepare(whole, encode_text)[0], "hiervl": prepare(levels, encode_text)[0]}


def measure_steps(job: TrainJob, context: RankContext) -> Clock:
    """Take the steps of the training loop, each part by the clock."""
    system, clock = open_system(job, context), Clock()
    clock.time_gathers()
    state = load_state(job, system, context.device)
    model: nn.Module = state.model
    if context.world_size > 1:
        model = DistributedDataParallel(model, find_unused_parameters=system.partial_passes)
    loader = Prefetcher(system.stream(0, job.total_steps), job.config.stream, pin=False)
    batches = iter(loader)
    for step in range(job.total_steps):
        clock.start_step()
        with clock.timing("data"):
            batch = next(batches)
        state.optimizer.zero_grad(set_to_none=True)
        passes = system.passes(model, batch, step)
        while True:
            with clock.timing("forward"):
                each = next(passes, None)
            if each is None:
                break
            with clock.timing("backward"):
                each.total.backward()  # type: ignore[no-untyped-call]
        with clock.timing("optimizer"):
            set_learning_rate(state.optimizer, job.config.optimizer, step, job)
            clip_grad_norm_(state.model.parameters(), job.config.optimizer.clip_norm)
            state.optimizer.step()
        clock.steps[-1]["forward"] -= clock.steps[-1]["gather"]  # the gathers are inside
    loader.close()
    return clock


def figures_of(clock: Clock) -> dict[str, float]:
    """Mean milliseconds per step of each part and of the whole."""
    steps = clock.steps[WARM_UP:]
    parts = {f"{part}_ms": float(np.mean([1e3 * step[part] for step in steps])) for part in PARTS}
    return parts | {"step_ms": sum(parts.values())}


def run_rank(rank: int, world_size: int, job: TrainJob, rendezvous: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    clock = measure_steps(job, RankContext(rank, world_size))
    if rank == 0:
        torch.save(figures_of(clock), result)
    dist.destroy_process_group()


def step_by_part(name: str, job: TrainJob, folder: Path) -> list[dict[str, Any]]:
    """The parts for each number of ranks."""
    rows = []
    for ranks in (n for n in (1, 2, 4) if n <= (os.cpu_count() or 1)):
        place = str(folder / f"{name}-{ranks}")
        arguments = (ranks, job, f"{place}.rendezvous", f"{place}.result")
        mp.start_processes(run_rank, arguments, nprocs=ranks, start_method="spawn")
        rows.append({"what": f"step, {name}", "ranks": ranks} | torch.load(f"{place}.result"))
    return [row | {"efficiency": rows[0]["step_ms"] / row["step_ms"] / row["ranks"]} for row in rows]


def raw_read(store_uri: str, table: SampleTable) -> dict[str, Any]:
    """Read the shards of the split from start to end, again and again for a second."""
    files = sorted({Path(store_uri, row["shard"]) for rows in table.rows.values() for row in rows})
    started, num_bytes = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        for path in files:
            num_bytes += len(path.read_bytes())
    return {"what": "raw read of the shards", "gb_per_s": num_bytes / (time.perf_counter() - started) / 1e9}


def stream_alone(job: TrainJob, num_processes: int, steps: int) -> dict[str, Any]:
    """Read batches as a training does, with nothing kept, and do nothing with them."""
    config = StreamConfig(cache_mib=0, num_processes=num_processes)
    table = SampleTable.of(job.open_manifest(), "train")
    size = {key: sum(rows[i]["size"] for rows in table.rows.values()) for i, key in enumerate(table.index.keys)}
    plan = StreamPlan(
        batching=job.config.batching, seed=0, rank=0, world_size=1, first_step=0, num_steps=steps + WARM_UP
    )
    batches = iter(Prefetcher(TrainStream(FeatureReader(table, config), None, plan, config), config, pin=False))
    for _ in range(WARM_UP):  # the processes start
        next(batches)
    started, keys = time.perf_counter(), [key for batch in batches for key in batch.keys]
    elapsed = time.perf_counter() - started
    readers = f"{num_processes} processes" if num_processes else "a thread"
    return {
        "what": f"stream alone, {readers}",
        "samples_per_s": len(keys) / elapsed,
        "gb_per_s": sum(size[key] for key in keys) / elapsed / 1e9,
    }


def main() -> None:
    """Measure, print and write `runs/bench/step.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jobs = make_jobs(folder, steps + WARM_UP)
        figures = [row for name, job in jobs.items() for row in step_by_part(name, job, folder)]
        whole = jobs["hierarchical_vlm"]
        raw = raw_read(whole.config.store_uri, SampleTable.of(whole.open_manifest(), "train"))
        streams = [stream_alone(whole, count, 5 * steps) for count in sorted({0, 1, os.cpu_count() or 1})]
    figures += [raw, *(each | {"share_of_raw": each["gb_per_s"] / raw["gb_per_s"]} for each in streams)]
    record("step", figures)


if __name__ == "__main__":
    main()
