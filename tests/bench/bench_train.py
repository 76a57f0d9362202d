"""Training speed: the whole step beside the data stream alone, in one process on all cores.

    python -m tests.bench.bench_train             # two to three minutes on 2 cores; part of `make bench`
    python -m tests.bench.bench_train --steps 40  # shorter

Planted features of two encoders (512 and 512 wide, at 2 rows/s and about 1 row/s), 160 videos of 20 to 60 s. Rows:
  tiny   the demo's model; S   the 14 M parameter preset; upstream   77.9 M, on a GPU only
  stream cold   batches read from the shards alone, nothing kept in memory; stream warm   from memory
Times leave out validation, checkpoints and the first steps.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvlm.data.batching import BatchingConfig
from hvlm.losses.objective import ObjectiveConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.presets import PresetName
from infra.tracking import TrackingConfig
from pipelines.training.config import CheckpointConfig, StreamConfig
from pipelines.training.hierarchical_vlm.stream import StreamPlan, TrainStream
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.stream import FeatureReader, Prefetcher, SampleTable
from pipelines.training.system import RankContext
from pipelines.training.text import read_text_table
from tests.bench.record import record
from tests.pipelines.training.world import encode_text, make_store, train_config

DIMS = {"clip": 512, "c3d": 512}
LOG_EVERY = 10


class Meter:
    """Takes the training's own figures, as MLflow would get them."""

    def __init__(self) -> None:
        self.logged: list[Mapping[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if "train/samples_per_s" in metrics:
            self.logged.append(dict(metrics))

    def log_checkpoint(self, step: int, uri: str, metrics: Mapping[str, float], *, best: bool) -> None:
        pass

    def set_tags(self, tags: Mapping[str, object]) -> None:
        pass

    def flush(self) -> None:
        pass

    def median(self, name: str) -> float:
        """Median over the reports but the first, which holds the warm-up."""
        return float(np.median([figures[f"train/{name}"] for figures in self.logged[1:]]))


def make_job(store: str, folder: Path, preset: PresetName, batch: int, steps: int) -> TrainJob:
    """Prepare a training of `steps` steps on the planted store."""
    config = train_config(
        store,
        folder / preset,
        epochs=10_000,
        max_steps=steps,
        encoders=("clip", "c3d"),
        log_every_steps=LOG_EVERY,
        model=HierarchicalVLMConfig(encoder=preset),
        objective=ObjectiveConfig(text=1.0),
        batching=BatchingConfig(global_batch_size=batch, max_rows=256),
        checkpoint=CheckpointConfig(every_steps=100_000),
        tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", system_metrics_interval_s=0),
    )
    return prepare(config, encode_text)[0]


def full_step(job: TrainJob, preset: str, device: torch.device) -> dict[str, Any]:
    """Train, and return the medians of the run's own reports."""
    meter = Meter()
    train(job, RankContext(device=device), meter)
    names = ("samples_per_s", "frames_per_s", "data_wait_share", "padding_share")
    size = job.config.batching.global_batch_size
    return {"what": f"full step, {preset}", "batch": size} | {name: meter.median(name) for name in names}


def stream_alone(job: TrainJob, *, warm: bool, steps: int) -> dict[str, Any]:
    """Read batches as the training does, and do nothing with them."""
    config = StreamConfig() if warm else StreamConfig(cache_mib=0)
    reader = FeatureReader(SampleTable.of(job.open_manifest(), "train"), config)
    texts = None if job.text_uri is None else read_text_table(job.text_uri)
    if warm:
        for sample in range(len(reader.table)):
            reader.video(sample)
    batching = job.config.batching
    plan = StreamPlan(batching=batching, seed=0, rank=0, world_size=1, first_step=0, num_steps=steps)
    started, frames, rows = time.perf_counter(), 0, 0
    for batch in Prefetcher(TrainStream(reader, texts, plan, config), config, pin=False):
        frames += int(batch.mask_BT.sum())
        rows += batch.mask_BT.numel()
    elapsed = time.perf_counter() - started
    size = batching.global_batch_size
    return {
        "what": f"stream alone, {'warm' if warm else 'cold'}",
        "batch": size,
        "samples_per_s": steps * size / elapsed,
        "frames_per_s": frames / elapsed,
        "padding_share": 1 - frames / rows,
    }


def main() -> None:
    """Measure, print and write `runs/bench/train.json`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_train", description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes: list[tuple[PresetName, int, int]] = [("tiny", 16, 3 * steps), ("S", 16, max(2 * LOG_EVERY, steps // 4))]
    if device.type == "cuda":
        sizes.append(("upstream", 64, steps))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = make_store(folder / "store", 160, rows=(40, 120), dims=DIMS, shard_bytes=4 * 2**20)
        jobs = {preset: make_job(store, folder, preset, batch, count) for preset, batch, count in sizes}
        figures = [full_step(job, preset, device) for preset, job in jobs.items()]
        figures += [stream_alone(jobs["tiny"], warm=warm, steps=5 * steps) for warm in (False, True)]
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    record("train", [figure | {"device": hardware} for figure in figures])


if __name__ == "__main__":
    main()
