"""The jobs, their configuration types and their example files, read from the tree."""

import ast
import functools
import importlib
from pathlib import Path
from typing import Any

from tests.house.source_tree import ROOT, tree

CONFIGS = ROOT / "jobs" / "configs"
SHARED = {"plan": "extract"}
"""job -> the job whose files it reads."""


@functools.cache
def jobs() -> dict[str, str]:
    """job -> the name of its configuration type: the third argument of its `run_job` call."""
    found = {}
    for path in sorted((ROOT / "jobs").glob("*.py")):
        for node in ast.walk(tree(path.relative_to(ROOT))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_job":
                found[path.stem] = ast.unparse(node.args[2])
    return found


def config_type(job: str) -> type[Any]:
    """The configuration type of a job."""
    loaded: type[Any] = getattr(importlib.import_module(f"jobs.{job}"), jobs()[job])
    return loaded


def job_of(file: Path) -> str | None:
    """The job whose name begins a YAML's name, the longest one if several do."""
    fitting = [job for job in jobs() if file.stem == job or file.stem.startswith(f"{job}_")]
    return max(fitting, key=len, default=None)


def files_of(job: str) -> list[Path]:
    """The example files of a job."""
    return [path for path in sorted(CONFIGS.glob("*.yaml")) if job_of(path) == SHARED.get(job, job)]
