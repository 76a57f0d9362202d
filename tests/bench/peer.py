"""The job beside clip-video-encode 1.3.0 on the same videos, frames and model: `python -m tests.bench.peer PYTHON`.

PYTHON has the peer. Its own pins (torch<2, pyarrow<8, numpy<2) install on no Python that the current Ray supports, but
its code still runs beside newer packages, so it gets ours and is installed without its pins:
  python -m venv /tmp/peer
  echo "$PWD/.venv/lib/python3.11/site-packages" > /tmp/peer/lib/python3.11/site-packages/ours.pth
  /tmp/peer/bin/pip install --no-deps clip-video-encode==1.3.0 video2numpy==2.3.0 opencv-python-headless ffmpeg-python \
    future fire termcolor youtube-dl
Every 25th frame through ViT-B/32 with random weights, float32, all cores, WebDataset out; the peer reads with one
process per core. Start-up (the same over one short video) is subtracted. The two alternate; ratios within a round.
"""

import argparse
import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from hvlm.encoders.config import ClipConfig
from hvlm.video.sampling import SamplingConfig
from infra.cluster import ClusterConfig, connect
from tests.bench.bench_extract import make_folder, time_job
from tests.bench.record import record

EVERY_N = 25
_PEER = """
import sys, time, json
from clip_video_encode.clip_video_encode import clip_video_encode
sources, out, every_n, cores = json.loads(sys.argv[1])
clip_video_encode(sources, out, output_format="webdataset", take_every_nth=every_n, frame_workers=cores,
                  oc_model_name="ViT-B-32", pretrained="")
"""


def time_peer(python: str, folder: Path, root: Path, cores: int) -> tuple[float, int]:
    """Return seconds and frames of one run of the peer."""
    out = root / "peer"
    out.mkdir()
    sources = [str(path) for path in sorted(folder.iterdir())]
    arguments = json.dumps([sources, str(out), EVERY_N, cores])
    started = time.perf_counter()
    subprocess.run([python, "-c", _PEER, arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    with connect(ClusterConfig(num_cpus=cores)):
        rows = ray.data.read_webdataset([str(path) for path in sorted(out.glob("*.tar"))]).take_all()
    shutil.rmtree(out)
    return seconds, sum(len(row["npy"]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the interpreter that has clip-video-encode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--cores", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    clip = ClipConfig(
        model="ViT-B-32", pretrained="random", sampling=SamplingConfig(kind="every_n", n=EVERY_N), batch_size=256
    )
    root = Path(tempfile.mkdtemp(prefix="hvlm-bench-"))
    folder, single = make_folder(root, options.copies), root / "single"
    for path in folder.glob("av1_video-*"):  # OpenCV cannot decode AV1: the peer then waits for its frames for ever
        path.unlink()
    single.mkdir()
    shutil.copy(min(folder.iterdir(), key=lambda path: path.stat().st_size), single)
    rounds = []
    for _ in range(options.rounds):
        with connect(ClusterConfig(num_cpus=options.cores)):
            time_job(single, root, clip, "pyav")
            startup, _ = time_job(single, root, clip, "pyav")
            job_s, frames = time_job(folder, root, clip, "pyav")
        time_peer(options.python, single, root, options.cores)
        peer_startup, _ = time_peer(options.python, single, root, options.cores)
        peer_s, peer_frames = time_peer(options.python, folder, root, options.cores)
        rounds.append(
            {
                "job_fps": frames / (job_s - startup),
                "job_frames": frames,
                "peer_fps": peer_frames / (peer_s - peer_startup),
                "peer_frames": peer_frames,
                "job_over_peer": frames / (job_s - startup) * (peer_s - peer_startup) / peer_frames,
            }
        )
    shutil.rmtree(root)
    record("peer", [{name: float(np.median([one[name] for one in rounds])) for name in rounds[0]}])


if __name__ == "__main__":
    main()
