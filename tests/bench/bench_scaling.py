"""Two encoders from one decode, and one core against two: `python -m tests.bench.bench_scaling`.

Decode-bound (tiny CLIP at 1 fps, tiny C3D at 12.5 fps). Each case is a whole extraction on a Ray of its own, in a fresh
process that may use only the stated cores; start-up (the same over one short video, after a first run that warms the
workers) is subtracted. Cases alternate; ratios are taken within a round:
  both_over_max   seconds of clip + c3d together over the longer of the two alone (target: at most 1.1)
  two_over_one    frames/s of clip on all cores over those on one (target: at least 1.8 on two)
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hvlm.encoders.config import C3DConfig, ClipConfig
from hvlm.video.sampling import SamplingConfig
from infra.cluster import ClusterConfig, connect
from pipelines.extraction.config import EncoderConfig, ExtractConfig
from pipelines.extraction.run import extract
from pipelines.store.sources import SourceConfig
from tests.bench.bench_extract import FPS, TINY, make_folder
from tests.bench.bench_plan import in_a_fresh_process
from tests.bench.record import record

ENCODERS: dict[str, EncoderConfig] = {
    "clip": ClipConfig(model=TINY, pretrained="random", sampling=SamplingConfig(kind="fps", fps=FPS)),
    "c3d": C3DConfig(weights="random", fps=12.5, width=0.0625, fc_dim=128),
}


def run_case(folder: Path, encoders: list[str], cores: int) -> dict[str, float]:
    """Extract on this process's first `cores` cores and return seconds beyond start-up, start-up and frames."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    single = folder.parent / "single"

    def timed(source: Path) -> tuple[float, int]:
        store = folder.parent / f"store-{time.monotonic_ns()}"
        chosen = {name: ENCODERS[name] for name in encoders}
        started = time.perf_counter()
        report = extract(ExtractConfig(store_uri=str(store), source=SourceConfig(uri=str(source)), encoders=chosen))
        seconds = time.perf_counter() - started
        shutil.rmtree(store)
        return seconds, report.num_frames

    with connect(ClusterConfig(num_cpus=cores)):
        timed(single)
        startup, _ = timed(single)
        seconds, frames = timed(folder)
    return {"seconds": seconds - startup, "startup_s": startup, "frames": frames}


def measure(copies: int, rounds: int, cores: int) -> list[dict[str, Any]]:
    """Return the seconds of every case and their ratios, medians over the rounds."""
    cases = {
        "clip": (["clip"], cores),
        "c3d": (["c3d"], cores),
        "both": (["clip", "c3d"], cores),
        "clip_one_core": (["clip"], 1),
    }
    root = Path(tempfile.mkdtemp(prefix="hvlm-bench-"))
    try:
        folder = make_folder(root, copies)
        (root / "single").mkdir()
        shutil.copy(min(folder.iterdir(), key=lambda path: path.stat().st_size), root / "single")
        found = [{name: _in_its_process(folder, *case) for name, case in cases.items()} for _ in range(rounds)]
    finally:
        shutil.rmtree(root)
    seconds = {f"{name}_s": float(np.median([one[name]["seconds"] for one in found])) for name in cases}
    longer = [max(one["clip"]["seconds"], one["c3d"]["seconds"]) for one in found]
    both = float(np.median([one["both"]["seconds"] / limit for one, limit in zip(found, longer, strict=True)]))
    two = float(np.median([one["clip_one_core"]["seconds"] / one["clip"]["seconds"] for one in found]))
    frames = {f"{name}_frames": found[0][name]["frames"] for name in cases}
    return [{"rounds": rounds, "cores": cores, **frames, **seconds, "both_over_max": both, "two_over_one": two}]


def _in_its_process(folder: Path, encoders: list[str], cores: int) -> Any:
    return in_a_fresh_process("bench_scaling", "--case", str(folder), *encoders, "--cores", str(cores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=46)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--case", nargs="+", metavar=("FOLDER", "ENCODER"), help="one case, for the processes it starts"
    )
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(Path(options.case[0]), options.case[1:], options.cores)))
    else:
        record("bench_scaling", measure(options.copies, options.rounds, options.cores))


if __name__ == "__main__":
    main()
