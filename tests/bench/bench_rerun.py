"""A finished job's re-run: `python -m tests.bench.bench_rerun` (under 5 s for 100,000 videos; `--num-videos 1000000`).

`extract` over a folder of 100,000 empty files whose features are all published, by two encoders: it lists the folder,
plans, publishes nothing and does not start Ray. Then a tenth as many files are new, and `jobs.plan` looks at the whole
(under 30 s and 2 GB for a million). Timed in fresh processes, their imports not counted; the peak resident memory is
that process's, `imports_mb` of it before the job begins. cpu_s is the processor time on all cores: what other load on
the machine cannot change.
"""

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path

import polars as pl
import ray

from infra.config_io import build_config
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.run import extract
from pipelines.extraction.stages import encoder_columns
from pipelines.store.catalog import FeatureStore
from pipelines.store.claim import claim_source
from pipelines.store.plan import Plan, assigned_splits
from pipelines.store.schema import SAMPLES, VIDEOS
from pipelines.store.sources import list_source
from tests.bench.bench_plan import fill, in_a_fresh_process, peak_mb, published_rows
from tests.bench.record import record


def finished_config(folder: Path) -> ExtractConfig:
    """Return the configuration of the finished job in a folder: two tiny encoders."""
    clip = {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"}
    c3d = {"kind": "c3d", "weights": "random", "width": 0.0625, "fc_dim": 32}
    values = {"store_uri": str(folder / "store"), "source": {"uri": str(folder / "videos")}}
    return build_config(ExtractConfig, {**values, "encoders": {"clip": clip, "c3d": c3d}}, origin="bench_plan")


def make_finished(folder: Path, num_videos: int) -> None:
    """Write empty files and the catalog of a job that has published all of them."""
    config = finished_config(folder)
    (folder / "videos").mkdir()
    add_files(folder, range(num_videos))
    listed = list_source(config.source).frame
    videos = listed.with_columns(
        snapshot=pl.lit(1), content_hash=pl.col("metadata_hash") + pl.col("video_id"), state=pl.lit("live")
    )
    store = FeatureStore.open(config.store_uri, create=True)
    claim_source(store, "videos", config.source.uri, replace=False)
    store.commit_videos(fill(VIDEOS, videos))
    prints = [(name, column.fingerprint) for name, column in encoder_columns(config).items()]
    encoders = pl.DataFrame(prints, schema=["encoder", "fingerprint"], orient="row")
    both = videos.select("video_id", "key", "content_hash", "metadata_hash").join(encoders, how="cross")
    both = both.join(assigned_splits(videos, config.publish.splits), on="video_id")
    selected = fill(SAMPLES, encoders.with_columns(state=pl.lit("selected"), commit=pl.lit(1), split=pl.lit("")))
    order = list(SAMPLES)
    store.commit_samples(
        pl.concat([published_rows(both).select(order), selected.select(order)], how="vertical_relaxed"), 0
    )


def add_files(folder: Path, numbers: range) -> None:
    for number in numbers:
        (folder / "videos" / f"v_{number:07d}.mp4").touch()


def rerun_in_this_process(folder: Path, job: str) -> dict[str, object]:
    """Run the finished job again, or plan it; return the times and this process's peak memory."""
    config = finished_config(folder)
    encoder_columns(config)  # imports open_clip
    before_mb = peak_mb()
    gc.freeze()  # as `jobs.entry` does
    started, cpu = time.perf_counter(), time.process_time()
    plan = _rerun(config) if job == "extract" else preview(config).plan
    return {
        "job": job,
        "num_videos": plan.num_videos,
        "new": plan.counts["clip"]["new"],
        "total_s": round(time.perf_counter() - started, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "imports_mb": round(before_mb),
        "peak_mb": round(peak_mb()),
    }


def _rerun(config: ExtractConfig) -> Plan:
    report = extract(config)
    if ray.is_initialized() or report.plan.todo.height or report.published.version != 1 or report.snapshot.new:
        raise RuntimeError(f"the re-run was not idle: {report}")
    return report.plan


def main() -> None:
    """Make the finished job, run it again in a fresh process and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-videos", type=int, default=100_000)
    parser.add_argument(
        "--rerun", nargs=2, metavar=("FOLDER", "JOB"), help="run it in this process (used by the benchmark itself)"
    )
    arguments = parser.parse_args()
    if arguments.rerun:
        folder, job = arguments.rerun
        print(json.dumps(rerun_in_this_process(Path(folder), job)))
        return
    with tempfile.TemporaryDirectory() as folder:
        number = arguments.num_videos
        make_finished(Path(folder), number)
        figures = [in_a_fresh_process("bench_rerun", "--rerun", folder, "extract")]
        add_files(Path(folder), range(number, number + number // 10))
        figures.append(in_a_fresh_process("bench_rerun", "--rerun", folder, "plan"))
    print(json.dumps(record("rerun", figures)))


if __name__ == "__main__":
    main()
