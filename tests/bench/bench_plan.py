"""Planning over a synthetic catalog of 100,000 videos: `python -m tests.bench.bench_plan` (under 5 s and 500 MB).

A million: `python -m tests.bench.bench_plan --num-videos 1000000` (under 30 s and 2 GB). The mixed catalog is the one
that a killed job finds when it is resumed.

The catalog lies on disk as the job finds it: 100,000 videos, two encoders, of which 60 % are published, 10 % staged,
10 % staged in part, 5 % failed, 5 % changed and 10 % new. The plan is made in a fresh process, reading the tables
included; the peak resident memory is that process's. A second plan is made when everything is published ("nothing to
do"). cpu_s is the processor time of the same work on all cores: what other load on the machine cannot change.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from hvlm.data.splits import SplitConfig
from pipelines.store.catalog import FeatureStore
from pipelines.store.plan import assigned_splits, make_plan
from pipelines.store.schema import FAILURES, SAMPLES, STAGED, VIDEOS
from tests.bench.record import record

FINGERPRINTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("clip", "c3d")}
METADATA = json.dumps(
    {"annotations": [{"label": "Rafting", "segment": [1.0, 20.5]}], "summary": "a group rafts"} | {"x": "y" * 200}
)


def make_catalog(uri: str, num_videos: int, published_share: float) -> None:
    """Write a catalog in which the first share of the videos is published and the rest is in every other state."""
    store = FeatureStore.open(uri, create=True)
    videos = fill(VIDEOS, _videos(num_videos))
    store.commit_videos(videos)
    videos = videos.join(assigned_splits(videos, SplitConfig()), on="video_id")
    count = int(num_videos * published_share)
    rest, step = num_videos - count, max(1, (num_videos - count) // 4)
    encoders = pl.DataFrame({"encoder": list(FINGERPRINTS), "fingerprint": list(FINGERPRINTS.values())})
    both = videos.select("video_id", "key", "content_hash", "metadata_hash", "wanted_split", "number").join(
        encoders, how="cross"
    )
    published = both.filter(pl.col("number") < count + (step // 2 if rest else 0))
    changed = pl.col("number") >= count
    published = published.with_columns(
        content_hash=pl.when(changed).then(pl.lit("old")).otherwise(pl.col("content_hash"))
    )
    store.commit_samples(published_rows(published), 0)
    segments = pl.DataFrame({"segment_index": [0, 1, 2]}).with_columns(num_segments=pl.lit(3))
    staged = both.filter((pl.col("number") >= count + step) & (pl.col("number") < count + 3 * step)).join(
        segments, how="cross"
    )
    partial = pl.col("number") >= count + 2 * step
    staged = staged.filter(~(partial & (pl.col("segment_index") == 1)))
    staged = staged.with_columns(layout=pl.lit("segment_s=60"), run_id=pl.lit("run"), tar=pl.lit("staging/run/0.tar"))
    if rest:
        store.replace_staged(fill(STAGED, staged))
        failed = videos.filter(pl.col("number") >= num_videos - step // 2).select("video_id", "content_hash")
        values = {"encoder": "", "fingerprint": "", "stage": "decode", "reason": "truncated", "permanent": True}
        failed = failed.with_columns(**{name: pl.lit(value) for name, value in values.items()})
        store._append("failures", fill(FAILURES, failed))


def plan_in_this_process(uri: str) -> dict[str, object]:
    """Read the tables and plan; return the times and this process's peak memory."""
    before_mb = peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    frames = FeatureStore.open(uri).frames()
    read_s = time.perf_counter() - started
    plan = make_plan(frames, FINGERPRINTS, dict.fromkeys(FINGERPRINTS, "segment_s=60"), SplitConfig())
    total_s = time.perf_counter() - started
    peak = peak_mb()
    found = {name: number for name, number in plan.counts["clip"].items() if number}
    return {
        "num_videos": plan.num_videos,
        "todo": plan.todo.height,
        "status": found,
        "read_s": round(read_s, 3),
        "plan_s": round(total_s - read_s, 3),
        "total_s": round(total_s, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "imports_mb": round(before_mb),
        "peak_mb": round(peak),
    }


def main() -> None:
    """Make both catalogs, plan each in a fresh process and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-videos", type=int, default=100_000)
    parser.add_argument(
        "--plan", metavar="URI", help="plan this catalog in this process (used by the benchmark itself)"
    )
    arguments = parser.parse_args()
    if arguments.plan:
        print(json.dumps(plan_in_this_process(arguments.plan)))
        return
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, share in (("mixed", 0.6), ("nothing to do", 1.0)):
            uri = str(Path(folder) / name.replace(" ", "_"))
            make_catalog(uri, arguments.num_videos, share)
            figures.append({"catalog": name} | in_a_fresh_process("bench_plan", "--plan", uri))
    print(json.dumps(record("plan", figures)))


def in_a_fresh_process(module: str, *arguments: str) -> dict[str, object]:
    """Run a module of this folder and return the JSON of its last line."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb() -> float:
    """Peak resident memory of this process; `getrusage` would count the parent's before exec."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _videos(num_videos: int) -> pl.DataFrame:
    numbers = range(num_videos)
    ids = [f"v_{hashlib.sha256(str(number).encode()).hexdigest()[:11]}" for number in numbers]
    hashes = [hashlib.sha256(video_id.encode()).hexdigest() for video_id in ids]
    frame = pl.DataFrame(
        {"number": numbers, "video_id": ids, "key": ids, "content_hash": hashes, "metadata_hash": hashes}
    )
    return frame.with_columns(
        snapshot=pl.lit(1),
        uri=pl.lit("s3://bucket/videos/") + pl.col("video_id") + ".mp4",
        duration_s=pl.lit(117.0),
        metadata_json=pl.lit(METADATA),
        state=pl.lit("live"),
    )


def published_rows(pairs: pl.DataFrame) -> pl.DataFrame:
    """Make live rows of generation 1 of (video, encoder) pairs."""
    return fill(
        SAMPLES,
        pairs.with_columns(
            split=pl.col("wanted_split"),
            commit=pl.lit(1),
            gen=pl.lit(1),
            state=pl.lit("live"),
            shard=pl.lit("features/clip/gen-000001/train-000000.tar"),
            shard_sha256=pl.lit("0" * 64),
            sample_sha256=pl.col("content_hash"),
        ),
    )


def fill(schema: dict[str, pl.DataType], frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that planning does not read."""
    missing = {
        name: pl.lit("" if kind == pl.String() else 0 if kind != pl.Boolean() else False, dtype=kind)
        for name, kind in schema.items()
        if name not in frame.columns and name not in ("subset", "split")
    }
    nulls = {
        name: pl.lit(None, dtype=pl.String)
        for name in ("subset", "split")
        if name in schema and name not in frame.columns
    }
    return frame.with_columns(**missing, **nulls)


if __name__ == "__main__":
    main()
