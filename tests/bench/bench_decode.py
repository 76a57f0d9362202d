"""What decoding costs: `python -m tests.bench.bench_decode` (`--only speed keyframes child memory cache`).

  speed      frames per CPU second of each backend per kind of video, every frame (C3D) and 1 fps (CLIP), resized to
             224²; beside it how many frames were not those asked for (numbered videos), or the mean difference from
             PyAV in levels
  keyframes  keyframe sampling against 1 fps on 1080p with a keyframe every 10 s (at least 5 times as fast)
  child      decoding in the killable child against decoding in this process, per video (below 2 %)
  memory     peak memory of worker and child on 10 minutes and on 3 hours (the same)
  cache      making the small copy of a video, its size, and decoding it against decoding the original

Everything that is compared is measured in turn within a round; medians over the rounds are reported, in CPU seconds of
this process and the child. torchcodec is measured where it is importable. One decoding thread.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch

from hvlm.errors import VideoError
from hvlm.video.decoding import decode_views, get_backend
from hvlm.video.index import VideoIndex, scan_video
from hvlm.video.packets import BackendName, backend_for
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from hvlm.video.shrink import shrink_video
from hvlm.video.views import FrameView
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.sandbox import DecodeLimits, process_sandbox
from pipelines.extraction.work import SEGMENTS_PER_ROW, WORK_SCHEMA
from tests.bench.bench_plan import in_a_fresh_process, peak_mb
from tests.bench.record import record
from tests.hvlm.video.backends import torchcodec_is_importable
from tests.hvlm.video.numbered import RECIPES, read_number, request_frames, write_video

SHARED = Path(__file__).parents[3] / "shared" / "videos"
REAL = (
    "kinetics_test.mp4",
    "arm_wrestling.mp4",
    "nasa_13013.mp4",
    "flipping_a_pancake.mkv",
    "av1_video.mkv",
    "h265_video.mp4",
    "h264_10bits.mp4",
    "video_90.mov",
    "ucf_test.avi",
)
EVERY_FRAME = FrameView(sampling=SamplingConfig(kind="every_n", n=1))
ONE_FPS = FrameView(sampling=SamplingConfig(fps=1.0))
LIMITS = DecodeLimits()
KEYFRAMES = FrameView(sampling=SamplingConfig(kind="keyframes"))
C3D = FrameView(
    sampling=SamplingConfig(fps=12.5),
    clip_frames=16,
    clip_stride=16,
    resize=(128, 171),
    crop=112,
    interpolation="bilinear",
)


def write_noise(path: Path, seconds: float, size: tuple[int, int], codec: str, options: dict[str, str]) -> Path:
    """Write 25 fps of a picture of blurred noise that moves."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(seconds * 25)):
            shifted = np.roll(picture, (number * 2 % width, number % height), axis=(1, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def made_videos(folder: Path) -> list[Path]:
    """Twenty seconds of 640x360 in the codecs of the web."""
    kinds = {
        "h264_360p.mp4": ("libx264", {"g": "100", "bf": "3", "preset": "veryfast"}),
        "hevc_360p.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=100:log-level=none"}),
        "vp9_360p.webm": ("libvpx-vp9", {"g": "100", "deadline": "realtime", "cpu-used": "8"}),
    }
    return [write_noise(folder / name, 20.0, (640, 360), *kind) for name, kind in kinds.items()]


def decode_here(path: Path, backend: BackendName, view: FrameView) -> int:
    """Scan and decode a video in this process; return the number of frames."""
    index = scan_video(path)
    return sum(
        len(decode_views(index.stream, backend, segment, {"v": view})["v"])
        for segment in plan_segments(index, {"v": view}, 60.0)
    )


def cpu_s() -> float:
    """Return the CPU seconds that this process and the decoding child have used so far, all threads.

    Other load on the machine changes these little, and the clock's seconds much.
    """
    child = process_sandbox(LIMITS)._child
    threads = Path(f"/proc/{child.process.pid}/task").glob("*/schedstat") if child else []
    return time.process_time() + sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def seconds_of(work: Callable[[], Any], at_least_s: float = 0.4) -> float:
    """Return the CPU seconds of one call, repeated until they add up to something that can be told."""
    calls, started = 0, cpu_s()
    while calls == 0 or cpu_s() - started < at_least_s:
        work()
        calls += 1
    return (cpu_s() - started) / calls


def backends() -> list[BackendName]:
    return ["pyav", "decord", "torchcodec"] if torchcodec_is_importable() else ["pyav", "decord"]


def measure_speed(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row per video: median frames/s per backend, and how its frames differ from PyAV's."""
    for path in [SHARED / name for name in REAL if (SHARED / name).exists()] + made_videos(folder):
        index, row = scan_video(path), {"video": path.name, "frames": scan_video(path).num_frames}
        able = [name for name in backends() if backend_for(name, index.counted) == name]
        for title, view in (("all", EVERY_FRAME), ("1fps", ONE_FPS)):
            times: dict[str, list[float]] = {name: [] for name in able}
            for turn in range(rounds):
                for name in able[turn % len(able) :] + able[: turn % len(able)]:
                    times[name].append(seconds_of(partial(decode_here, path, name, view)))
            # Of 1 fps too the video's own frames count: how fast the video is got through.
            row |= {f"{name}_{title}": round(index.num_frames / float(np.median(times[name]))) for name in able}
        yield row | {f"{name}_levels": difference(index, name) for name in able if name != "pyav"}


def difference(index: VideoIndex, backend: BackendName) -> float:
    """Return the mean difference from PyAV's pixels over 12 frames, in levels of 255."""
    request = request_frames(index, list(range(0, index.num_frames, max(1, index.num_frames // 12))))
    pairs = zip(get_backend("pyav").decode(request), get_backend(backend).decode(request), strict=True)
    return round(float(np.mean([np.abs(one.astype(int) - other).mean() for one, other in pairs])), 3)


def measure_parity(folder: Path) -> dict[str, Any]:
    """Return, over all numbered videos, how many frames of each backend were another than asked for, or refused."""
    row: dict[str, Any] = {"video": f"{len(RECIPES)} numbered kinds", "frames": 60 * len(RECIPES)}
    for name in backends():
        wrong, refused = 0, 0
        for kind, (suffix, recipe) in RECIPES.items():
            path = folder / f"{kind}.{suffix}"
            index = scan_video(path if path.exists() else write_video(path, recipe))
            try:
                backend = get_backend(backend_for(name, index.counted))
                read = [read_number(frame) for frame in backend.decode(request_frames(index, [*range(60)]))]
                wrong += sum(number != wanted for wanted, number in enumerate(read))
            except VideoError:
                refused += 1
        row |= {f"{name}_wrong_frames": wrong, f"{name}_refused_kinds": refused}
    return row


def measure_keyframes(folder: Path, rounds: int) -> dict[str, Any]:
    """Return how much faster keyframes are than 1 fps on 60 s of 1080p with a keyframe every 250 frames."""
    options = {"g": "250", "bf": "2", "preset": "ultrafast", "x264-params": "scenecut=0"}
    path = write_noise(folder / "1080p.mp4", 60.0, (1920, 1080), "libx264", options)
    times: dict[str, list[float]] = {"one_fps_s": [], "keyframes_s": []}
    for _ in range(rounds):
        for name, view in (("one_fps_s", ONE_FPS), ("keyframes_s", KEYFRAMES)):
            times[name].append(seconds_of(partial(decode_here, path, "pyav", view)))
    median = {name: float(np.median(values)) for name, values in times.items()}
    ratios = np.array(times["one_fps_s"]) / np.array(times["keyframes_s"])
    return {"kind": "keyframes", "rounds": rounds, **median, "times_faster": float(np.median(ratios))}


def decode_in_child(path: Path, backend: BackendName, view: FrameView) -> int:
    """As `decode_here`, in the child process."""
    sandbox = process_sandbox(LIMITS)
    index = sandbox.scan(str(path))
    return sum(
        len(sandbox.decode(backend, index, segment, {"v": view})["v"])
        for segment in plan_segments(index, {"v": view}, 60.0)
    )


def measure_child(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield what the child adds per video; `share` is of the whole set, which a job's cost is made of."""
    videos = [SHARED / name for name in REAL if (SHARED / name).exists()] + made_videos(folder)
    for view_name, view in (("1 fps", ONE_FPS), ("C3D at 12.5 fps", C3D), ("every frame", EVERY_FRAME)):
        for path in videos:  # both warm
            decode_here(path, "pyav", view)
            decode_in_child(path, "pyav", view)
        added, shares = [], []
        for turn in range(rounds):
            ways = [decode_here, decode_in_child]
            totals = dict.fromkeys(ways, 0.0)
            for path in videos:
                for way in ways if turn % 2 else ways[::-1]:
                    totals[way] += seconds_of(partial(way, path, "pyav", view), 0.2)
            added.append((totals[decode_in_child] - totals[decode_here]) / len(videos))
            shares.append(totals[decode_in_child] / totals[decode_here] - 1)
        yield {
            "kind": f"child, {view_name}",
            "rounds": rounds,
            "videos": len(videos),
            "added_ms_per_video": float(np.median(added)) * 1e3,
            "share": float(np.median(shares)),
        }


def extract_memory(path: Path) -> dict[str, Any]:
    """Run the decode stage over one video in this process; return the peaks of it and of its child, in MB."""
    views = {"clip": ONE_FPS, "c3d": C3D}
    decoder = Decoder(backend="pyav", segment_s=60.0, views=views)
    duration_s = scan_video(path).duration_s
    parts = max(1, int(np.ceil(duration_s / 60.0 / SEGMENTS_PER_ROW)))
    needs = [{"encoder": name, "staged_segments": []} for name in views]
    work = {"video_id": "v", "key": "v", "uri": str(path), "content_hash": "h", "num_parts": parts, "needs": needs}
    frames = 0
    for part in range(parts):
        for table in decoder(pa.Table.from_pylist([work | {"part": part}], schema=WORK_SCHEMA)):
            frames += table.column("num_frames_decoded")[0].as_py()
    child = process_sandbox(decoder.limits)._child
    status = Path(f"/proc/{child.process.pid}/status").read_text() if child else ""
    child_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "kind": "memory",
        "minutes": round(duration_s / 60),
        "frames": frames,
        "worker_peak_mb": round(peak_mb()),
        "child_peak_mb": round(child_kb / 1024),
    }


def measure_memory(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the peaks for 10 minutes and for 3 hours, each in a fresh process."""
    for minutes in (10, 180):
        options = {"g": "250", "bf": "2", "preset": "ultrafast"}
        path = write_noise(folder / f"{minutes}-minutes.mp4", minutes * 60.0, (160, 96), "libx264", options)
        yield in_a_fresh_process("bench_decode", "--memory-of", str(path))


def write_enlarged(path: Path, source: Path, size: tuple[int, int]) -> Path:
    """Write a real video again in another size: what it shows is natural, unlike noise, which no codec makes small."""
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        rate = original.streams.video[0].average_rate
        stream = container.add_stream("libx264", rate=rate, options={"g": "250", "bf": "2", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in original.decode(video=0):
            large = frame.reformat(*size, format="yuv420p", interpolation="BICUBIC")
            large.pict_type = 0
            container.mux(stream.encode(large))
        container.mux(stream.encode(None))
    return path


def measure_cache(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield, per video, what its copy costs and saves."""
    options = {"g": "250", "bf": "2", "preset": "veryfast"}
    made = write_noise(folder / "1080p-cache.mp4", 20.0, (1920, 1080), "libx264", options)
    real = [SHARED / name for name in REAL if (SHARED / name).exists()]
    large = [write_enlarged(folder / f"1080p-{path.name}", path, (1440, 1080)) for path in real[:2]]
    for path in [made, *large, *real]:
        index, copy = scan_video(path), folder / f"{path.name}.copy"
        times: dict[str, list[float]] = {"make_s": []}
        for _ in range(rounds):
            times["make_s"].append(seconds_of(partial(shrink_video, index, str(copy), 256)))
            for title, view in (("1fps", ONE_FPS), ("c3d", C3D)):
                for kind, file in (("original", path), ("copy", copy)):
                    times.setdefault(f"{kind}_{title}_s", []).append(
                        seconds_of(partial(decode_here, file, "pyav", view))
                    )
        yield {
            "video": path.name,
            "size": f"{index.width}x{index.height}",
            "seconds": round(index.duration_s, 2),
            "frames": index.num_frames,
            "bytes": path.stat().st_size,
            "copy_bytes": copy.stat().st_size,
            **{name: round(float(np.median(values)), 4) for name, values in times.items()},
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the speed rows as the table of docs/DECODING.md."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(str(row.get(name, "–")) for name in names) + " |" for row in rows])


def main() -> None:
    """Measure what is asked for, print a table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("speed", "keyframes", "child", "memory", "cache")
    parser.add_argument("--only", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", metavar="VIDEO", help="used by the benchmark: extract this one here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # the child's, as in a Ray worker
    if options.memory_of:
        print(json.dumps(extract_memory(Path(options.memory_of))))
        return
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "speed" in options.only:
            figures += [*measure_speed(folder, options.rounds), measure_parity(folder)]
            print(markdown(figures))
        if "keyframes" in options.only:
            figures.append(measure_keyframes(folder, options.rounds))
        if "child" in options.only:
            figures += measure_child(folder, options.rounds)
        if "memory" in options.only:
            figures += measure_memory(folder)
        if "cache" in options.only:
            copies = list(measure_cache(folder, options.rounds))
            print(markdown(copies))
            figures += copies
    print(json.dumps(record("decode", figures), indent=2))


if __name__ == "__main__":
    main()
