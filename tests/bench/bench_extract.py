"""Extraction speed beside its limits, all measured in one run: `python -m tests.bench.bench_extract` (part of `make
bench`).

Per regime (encoder-bound: ViT-B-32; decode-bound: the tiny CLIP) it prints frames/s of
  job       python -m jobs.extract's own pipeline on an embedded Ray, start-up subtracted and shown apart
  decode    the same decoder without Ray, one process per core
  encode    the same model on ready tensors, all cores
  limit     1 / (1/decode + 1/encode): what both allow together on shared cores
  plain     ray.data.read_videos(fps, resize) → map_batches(same encoder) → write_webdataset
Start-up is the wall time of the same pipeline over a single short video on the same Ray, after a first run that warms
the worker processes; both pipelines are treated alike. A round measures all of them one after the other, the limits
before and after the job (their mean counts) and, as the plain pipeline, on a quarter of its videos; ratios are taken
within a round. Five minutes per regime: `--rounds 1 --copies 30 800 --encode-s 150`, which measures the limit for as
long as the job: on a shared machine ten seconds may be any ten seconds.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import ray
import torch

from hvlm.encoders.config import ClipConfig
from hvlm.encoders.registry import describe_encoder, load_encoder
from hvlm.synthetic.dataset import RenderConfig, render_world
from hvlm.synthetic.world import WorldConfig
from hvlm.video.decoding import decode_views
from hvlm.video.index import scan_video
from hvlm.video.packets import BackendName
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from infra.cluster import ClusterConfig, connect
from pipelines.extraction.config import DecodeConfig, ExtractConfig
from pipelines.extraction.run import extract
from pipelines.store.sources import SourceConfig
from tests.bench.record import record

TINY = "jobs/configs/models/tiny_clip.json"
PLAYABLE = (
    "kinetics_test.mp4",
    "arm_wrestling.mp4",
    "ucf_test.avi",
    "flipping_a_pancake.mkv",
    "nasa_13013.mp4",
    "av1_video.mkv",
)
FPS = 1.0


def make_folder(root: Path, copies: int) -> Path:
    """Return a folder with `copies` of each playable real video (where they are at hand) and of 6 rendered ones."""
    folder = root / f"videos-{copies}"
    folder.mkdir(exist_ok=True)
    shared = Path(__file__).parents[3] / "shared" / "videos"
    world = WorldConfig(num_videos=6, num_families=1, min_duration_s=20.0, max_duration_s=30.0)
    if not (root / "rendered").exists():
        render_world(RenderConfig(output_path=str(root / "rendered"), world=world, bad_files=False))
    sources = [shared / name for name in PLAYABLE if (shared / name).exists()]
    if len(sources) < len(PLAYABLE):
        print(f"{len(PLAYABLE) - len(sources)} of {len(PLAYABLE)} real videos are not in {shared}: other figures")
    sources += sorted((root / "rendered" / "videos").iterdir())
    for source in sources:
        first = Path(shutil.copy(source, folder / f"{source.stem}-0000{source.suffix}"))
        for copy in range(1, copies):  # further names of the same bytes: thousands of copies would fill the disk
            os.link(first, folder / f"{source.stem}-{copy:04d}{source.suffix}")
    return folder


def config_of(folder: Path, store: Path, clip: ClipConfig, backend: str) -> ExtractConfig:
    return ExtractConfig(
        store_uri=str(store),
        source=SourceConfig(uri=str(folder)),
        encoders={"clip": clip},
        decode=DecodeConfig(backend=backend),  # type: ignore[arg-type]
    )


def time_job(folder: Path, root: Path, clip: ClipConfig, backend: str) -> tuple[float, int]:
    """Return seconds and frames of one extraction into a fresh store on the running Ray."""
    store = root / f"store-{time.monotonic_ns()}"
    start = time.perf_counter()
    report = extract(config_of(folder, store, clip, backend))
    seconds = time.perf_counter() - start
    shutil.rmtree(store)
    return seconds, report.num_frames


def _decode_one(arguments: tuple[str, str, ClipConfig]) -> int:
    path, backend, clip = arguments
    views = {"clip": describe_encoder(clip).view}
    index = scan_video(path)
    return sum(len(decode_views(index.stream, backend, s, views)["clip"]) for s in plan_segments(index, views, 60.0))


def raw_decode(folder: Path, clip: ClipConfig, backend: str, processes: int) -> float:
    """Return frames/s of decoding alone, one process per core, no Ray."""
    work = [(str(path), backend, clip) for path in sorted(folder.iterdir())]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(_decode_one, work[:processes])
        start = time.perf_counter()
        frames = sum(pool.imap_unordered(_decode_one, work))
        return frames / (time.perf_counter() - start)


def raw_encode(clip: ClipConfig, seconds: float) -> float:
    """Return frames/s of the encoder alone on ready uint8 tensors, all cores."""
    encoder = load_encoder(clip, "cpu")
    crop = encoder.view.crop
    batch = np.random.default_rng(0).integers(0, 256, (clip.batch_size, 1, crop, crop, 3), np.uint8)
    encoder.encode(batch)
    frames, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        frames += len(encoder.encode(batch))
    return frames / (time.perf_counter() - start)


class PlainEncoder:
    """The encoder as an idiomatic Ray Data actor."""

    def __init__(self, clip: ClipConfig) -> None:
        self.encoder = load_encoder(clip, "cpu")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        features = self.encoder.encode(np.stack(list(batch["frame"]))[:, None])
        keys = [
            f"{Path(path).stem}_{index:06d}" for path, index in zip(batch["path"], batch["frame_index"], strict=True)
        ]
        return {"__key__": np.array(keys), "npy": features}


def time_plain(folder: Path, root: Path, clip: ClipConfig) -> tuple[float, int]:
    """Return seconds and frames of the plain Ray Data pipeline."""
    crop = describe_encoder(clip).view.crop
    out = root / "plain"
    start = time.perf_counter()
    videos = ray.data.read_videos(str(folder), fps=int(FPS), resize=(crop, crop), include_paths=True)
    encoded = videos.map_batches(
        PlainEncoder, fn_constructor_args=(clip,), batch_size=clip.batch_size, concurrency=1, num_cpus=0.1
    )
    encoded.write_webdataset(str(out))
    seconds = time.perf_counter() - start
    frames = sum(1 for _ in ray.data.read_webdataset(str(out)).iter_rows())
    shutil.rmtree(out)
    return seconds, frames


def measure(regime: str, clip: ClipConfig, copies: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one regime; each is measured `options.rounds` times in turn, medians are reported."""
    root = Path(tempfile.mkdtemp(prefix="hvlm-bench-"))
    folder, single = make_folder(root, copies), root / "single"
    part = make_folder(root, max(1, copies // 4))
    single.mkdir()
    shortest = min(folder.iterdir(), key=lambda path: path.stat().st_size)
    shutil.copy(shortest, single)
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        limits = [(raw_decode(part, clip, options.backend, options.cores), raw_encode(clip, options.encode_s))]
        with connect(ClusterConfig(num_cpus=options.cores)):
            time_job(single, root, clip, options.backend)
            startup, _ = time_job(single, root, clip, options.backend)
            seconds, frames = time_job(folder, root, clip, options.backend)
        limits.append((raw_decode(part, clip, options.backend, options.cores), raw_encode(clip, options.encode_s)))
        decode, encode = (float(np.mean(values)) for values in zip(*limits, strict=True))
        with connect(ClusterConfig(num_cpus=options.cores)):
            time_plain(single, root, clip)
            plain_startup, _ = time_plain(single, root, clip)
            plain_seconds, plain_frames = time_plain(part, root, clip)
        rounds.append(
            {
                "decode_fps": decode,
                "encode_fps": encode,
                "limit_fps": 1 / (1 / decode + 1 / encode),
                "job_fps": frames / (seconds - startup),
                "job_startup_s": startup,
                "job_s": seconds,
                "plain_fps": plain_frames / (plain_seconds - plain_startup),
                "plain_startup_s": plain_startup,
            }
        )
    videos = sorted({path.name.rpartition("-")[0] for path in folder.iterdir()})
    shutil.rmtree(root)
    median = {name: float(np.median([r[name] for r in rounds])) for name in rounds[0]}
    ratios = {
        "job_over_limit": float(np.median([r["job_fps"] / r["limit_fps"] for r in rounds])),
        "job_over_plain": float(np.median([r["job_fps"] / r["plain_fps"] for r in rounds])),
        "plain_over_limit": float(np.median([r["plain_fps"] / r["limit_fps"] for r in rounds])),
    }
    return {
        "regime": regime,
        "backend": options.backend,
        "videos": " ".join(videos),
        "copies": copies,
        "frames": frames,
        "rounds": options.rounds,
        **median,
        **ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--backend", default="pyav", choices=get_args(BackendName))
    parser.add_argument(
        "--copies", type=int, nargs=2, default=(6, 170), help="copies of each video: encoder-bound, decode-bound"
    )
    parser.add_argument("--encode-s", type=float, default=10.0, help="seconds of each of the two raw encode runs")
    parser.add_argument("--regimes", nargs="+", default=("encoder", "decode"), choices=("encoder", "decode"))
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    sampling = SamplingConfig(kind="fps", fps=FPS)
    chosen = {
        "encoder": ("encoder-bound (ViT-B-32)", "ViT-B-32", options.copies[0]),
        "decode": ("decode-bound (tiny CLIP)", TINY, options.copies[1]),
    }
    regimes = [
        measure(title, ClipConfig(model=model, pretrained="random", sampling=sampling), copies, options)
        for title, model, copies in (chosen[name] for name in options.regimes)
    ]
    print(json.dumps(record("bench_extract", regimes), indent=2))


if __name__ == "__main__":
    main()
