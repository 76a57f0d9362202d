"""The whole path on rendered videos: render → extract → train → evaluate.

    python -m jobs.demo                 # what `make demo` runs, a few minutes on 2 cores
    python -m jobs.demo --smoke         # the same on a few videos and steps

Each step is the command that a user would type; the demo runs them one after the other and reads the report.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobs.entry import guarded

ENOUGH_GROUPS = 2


def demo_commands(size: str, root: Path) -> list[list[str]]:
    """Return the four commands; `size` is demo or smoke, everything they write lies in `root`."""
    folder = root / size
    overrides = {
        "render": [f"output_path={folder}"],
        "extract": [
            f"store_uri={folder}/store",
            f"source.uri={folder}/videos",
            f"source.annotations_uri={folder}/annotations.json",
        ],
        "train": [
            f"store_uri={folder}/store",
            f"output_uri={folder}/training",
            f"tracking.uri=sqlite:///{root.resolve()}/mlflow.db",
        ],
        "evaluate": [f"checkpoint={folder}/training", f"output_uri={folder}/evaluation"],
    }
    return [
        ["python", "-m", f"jobs.{step}", "--config", f"jobs/configs/{step}_{size}.yaml", *values]
        for step, values in overrides.items()
    ]


def verdict(report: dict[str, Any]) -> str:
    """Return in words whether training paid, from metrics.json.

    A group of metrics is won when more than half of its headline rows that have a better direction beat raw, floor and
    chance. Two groups are needed, so that retrieval, whose raw side may be chance by construction, is never enough.
    """
    beats_by_group: dict[str, list[bool]] = {}
    for row in report["metrics"]:
        if row["headline"] and row["beats_raw"] is not None:
            beats_by_group.setdefault(row["group"], []).append(row["beats_raw"])
    won = [group for group, beats in beats_by_group.items() if 2 * sum(beats) > len(beats)]
    score = f"{len(won)} of {len(beats_by_group)} groups" + (f": {', '.join(won)}" if won else "")
    if "retrieval" in won and report["raw_retrieval_is_chance"]:
        score += " (raw retrieval is chance here: the CLIP weights are random)"
    if len(won) >= ENOUGH_GROUPS:
        return f"the trained model beats the raw features in {score}"
    return f"THE TRAINED MODEL DOES NOT BEAT THE RAW FEATURES: it is ahead in {score}; {ENOUGH_GROUPS} are expected"


def main() -> int:
    """Run the steps; the first that fails ends the demo with its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a few videos and steps; takes a minute or two")
    parser.add_argument("--root", default="runs", type=Path, help="folder for everything it makes (default: runs)")
    arguments = parser.parse_args()
    size = "smoke" if arguments.smoke else "demo"
    started = time.monotonic()
    for command in demo_commands(size, arguments.root):
        print(f"\n$ {' '.join(command)}", flush=True)
        code = subprocess.run([sys.executable, *command[1:]], check=False).returncode
        if code != 0:
            print(f"{command[2]} ended with exit code {code}; the message above says why", file=sys.stderr)
            return code
    report = arguments.root / size / "evaluation" / "metrics.json"
    content = json.loads(report.read_text(encoding="utf-8"))
    print("\n" + ("a smoke run is too small to judge the model" if arguments.smoke else verdict(content)))
    print(f"{size} finished in {(time.monotonic() - started) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
