"""The whole path on rendered videos: render → extract → train → evaluate, then a short table.

    python -m jobs.demo                 # what `make demo` runs, a few minutes on 2 cores
    python -m jobs.demo --smoke         # the same on a few videos

Each step is the command that a user would type; the demo only runs them one after the other and reads the report.
"""

import argparse
import subprocess
import sys

STEPS = ("render", "extract", "train", "evaluate")


def main() -> int:
    """Run the steps; the first that fails ends the demo with its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a few videos and steps; takes a minute or two")
    parser.add_argument(
        "--root", default="runs", help="folder for videos, store, checkpoints, report and MLflow (default: runs)"
    )
    arguments = parser.parse_args()
    size = "smoke" if arguments.smoke else "demo"
    for step in STEPS:
        command = [
            sys.executable,
            "-m",
            f"jobs.{step}",
            "--config",
            f"jobs/configs/{step}_{size}.yaml",
            f"root={arguments.root}",
        ]
        print(f"\n$ python {' '.join(command[1:])}", flush=True)
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            print(f"the step '{step}' ended with exit code {code}; the message above says why", file=sys.stderr)
            return code
    return 0
