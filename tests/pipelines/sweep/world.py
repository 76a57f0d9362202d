"""Sweeps, trials and results that need no store."""

import os
import time
from pathlib import Path
from typing import Any

import yaml

from infra.config_io import build_config
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trial_run import TrialResult
from pipelines.sweep.trials import Trial, make_trials

TRAINING = "jobs/configs/train_smoke.yaml"
EVALUATION = "jobs/configs/evaluate_smoke.yaml"


def sweep(root: Path, **changes: Any) -> SweepConfig:
    """A sweep of one method, as a YAML would give it."""
    values: dict[str, Any] = {
        "training": TRAINING,
        "evaluation": EVALUATION,
        "output_uri": str(root / "sweep"),
        "methods": {"full": {}},
        "seeds": [0],
        "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "experiment": "tests", "system_metrics_interval_s": 0},
    }
    return build_config(SweepConfig, values | changes, origin="sweep")


def trials(root: Path, *names: str, **changes: Any) -> list[Trial]:
    """A trial of seed 0 for each method's name."""
    return make_trials(sweep(root, methods={name: {} for name in names}, **changes))


def result(value: float | None = 0.5, *, metric: str = "val/top1", raw: float | None = 0.25) -> TrialResult:
    """A result with one metric."""
    row = {"name": metric, "ours": value, "raw": raw, "better": "higher"}
    return TrialResult(run_id="r", checkpoint_uri="c", report_uri=None, duration_s=1.0, metrics=[row])


def fake_trial(trial: Trial) -> TrialResult:
    """Stands in for a training in a Ray worker: the method says how it ends."""
    if trial.method == "wrong":
        build_config(SweepConfig, {}, origin="the wrong trial")
    if trial.method == "broken":
        raise ZeroDivisionError("by zero\nand more")
    if trial.method == "killed":
        os._exit(1)
    return result(float(trial.seed))


def sleeping_trial(trial: Trial) -> TrialResult:
    """Writes its process's number and sleeps."""
    folder = Path(trial.output_uri)
    folder.mkdir(parents=True)
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(120)
    return result()


def write_yaml(path: Path, content: dict[str, Any]) -> str:
    """Write a configuration file and return its path."""
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)
