"""What every benchmark writes beside its figures: command, commit, hardware; and the table it prints."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def record(name: str, figures: list[dict[str, Any]], folder: str = "runs/bench") -> dict[str, Any]:
    """Write `{folder}/{name}.json`, print the figures as a table, and return the whole record."""
    commit = (
        subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        or "unknown"
    )
    dirty = bool(subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=False).stdout)
    whole = {
        "name": name,
        "command": " ".join(sys.orig_argv),
        "commit": commit + (" (with uncommitted changes)" if dirty else ""),
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "figures": figures,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    for figure in figures:
        print(f"\n{name}")
        for key, value in figure.items():
            print(f"  {key:<28} {value:.4g}" if isinstance(value, float) else f"  {key:<28} {value}")
    return whole


def _cpu_model() -> str:
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
