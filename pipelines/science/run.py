"""The planted world as a benchmark: worlds → stores → trainings → answers to the planted questions → gates → page.

Interrupted, the same command goes on: worlds and trials that are finished are not made again.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvlm.errors import JobError
from hvlm.synthetic.planted_hierarchy import PlantedHierarchy, planted_hierarchy
from hvlm.synthetic.planted_metrics import METRICS, Answers, chance
from infra import storage
from infra.cluster import connect, reject_relative_paths_in_job
from infra.config_io import dump_config, flatten_config
from infra.tracking import RunTracker, git_tags, open_run, resolve_tracking_uri, tracking_errors
from pipelines.science.config import ScienceConfig
from pipelines.science.gates import Gate, judge
from pipelines.science.measure import SPLITS, measure, measure_leaks
from pipelines.science.page import Background, render_page
from pipelines.science.runs import DATA_TAG, TrialRun, by_method, by_step, read_trial_runs
from pipelines.science.worlds import WORLDS, make_world, world_sha256, world_store
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import run_sweep
from pipelines.sweep.trial_run import finished_result
from pipelines.sweep.trials import Trial, make_trials
from pipelines.training.checkpoints import find_checkpoint

logger = logging.getLogger(__name__)

PAGE = "science.html"
RUN_FILE = "science.json"
_WORLDS = "worlds"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScienceReport:
    """What the benchmark gave. `chance`: metric by metric. `duration_s`: of this start."""

    gates: list[Gate]
    runs: list[TrialRun]
    chance: Mapping[str, float]
    page_path: str
    run_id: str
    tracking_uri: str
    duration_s: float

    @property
    def failed(self) -> list[Gate]:
        """The gates that do not hold."""
        return [gate for gate in self.gates if not gate.holds]


def run_science(config: ScienceConfig, command: str) -> ScienceReport:
    """Run what is missing, measure every trial and judge.

    Args:
        config: of the job.
        command: that makes this page, printed on it.

    Raises:
        UserError: a configuration is wrong, another world is in the way, or MLflow fails.
        JobError: a training failed.
    """
    reject_relative_paths_in_job({"output_path": config.output_path})
    started = time.monotonic()
    root = Path(config.output_path).absolute()
    sweeps = stage_sweeps(config, root)
    trials = [trial for sweep in sweeps for trial in make_trials(sweep)]  # all checked before anything is made
    _make_worlds(trials, config, root / _WORLDS)
    with connect(config.cluster):
        for sweep in sweeps:
            _run(sweep)
    uri = resolve_tracking_uri(config.tracking)
    worlds = {seed: planted_hierarchy(seed, config.world) for seed in config.seeds}
    runs = read_trial_runs(uri, _measure_all(trials, worlds, uri))
    guessed = chance(config.world)
    gates = judge(by_method(runs, METRICS, "seen"), by_step(runs), guessed)
    duration_s = time.monotonic() - started
    facts = [
        ("command", command),
        ("commit", git_tags()["git.commit"]),
        ("this start", f"{duration_s / 60:.1f} min"),
        ("MLflow", uri),
    ]
    page_path = str(root / PAGE)
    page = render_page(gates, runs, Background(chance=guessed, leaks=_leaks(worlds.values()), facts=facts))
    storage.atomic_write(page_path, page.encode())
    run_id = _log(config, root, gates, page_path)
    return ScienceReport(
        gates=gates,
        runs=runs,
        chance=guessed,
        page_path=page_path,
        run_id=run_id,
        tracking_uri=uri,
        duration_s=duration_s,
    )


def stage_sweeps(config: ScienceConfig, root: Path) -> list[SweepConfig]:
    """Return the sweep of each stage, in their order.

    Args:
        config: of the job.
        root: absolute path of its output.
    """
    return [
        SweepConfig(
            training=config.training,
            output_uri=str(root / name),
            overrides={"store_uri": str(root / _WORLDS / "planted-{seed}" / "store")},
            methods={method: _placed(changes, root) for method, changes in stage.methods.items()},
            seeds=stage.seeds or config.seeds,
            tracking=replace(config.tracking, run_name=f"science, {name}"),
            cluster=config.cluster,
        )
        for name, stage in config.stages.items()
    ]


def _placed(changes: dict[str, Any], root: Path) -> dict[str, Any]:
    return {
        key: value.replace("{output_path}", str(root)) if isinstance(value, str) else value
        for key, value in changes.items()
    }


def _make_worlds(trials: Sequence[Trial], config: ScienceConfig, folder: Path) -> None:
    """Those that a trial reads."""
    read = {trial.training.store_uri for trial in trials}
    for seed in config.seeds:
        for name in WORLDS:
            if world_store(folder, name, seed) in read:
                logger.info("world %s of seed %d", name, seed)
                make_world(folder, name, seed, config.world)


def _run(sweep: SweepConfig) -> None:
    report = run_sweep(sweep)
    if report.failures or report.not_started:
        first = next(iter(report.failures.items()), ("none", "not started"))
        raise JobError(
            f"{len(report.failures)} of {report.num_trials} trials in {report.output_uri} failed, e.g. {first[0]}: "
            f"{first[1]}; the same command tries them again"
        )


def _measure_all(
    trials: Sequence[Trial], worlds: Mapping[int, PlantedHierarchy], uri: str
) -> dict[str, dict[str, Answers]]:
    """Log the planted metrics of every trial's last checkpoint to its run; return run id -> answers behind them."""
    found = {}
    for trial in trials:
        result = finished_result(trial)
        if result is None:
            raise JobError(f"the trial {trial.name} has no result in {trial.output_uri}; run the same command again")
        checkpoint = find_checkpoint(trial.output_uri, "latest")
        answers = measure(checkpoint.uri, worlds[trial.seed])
        with tracking_errors(uri):
            tracker = RunTracker(uri, result.run_id, resumed=True)
            tracker.log_metrics({name: each.accuracy for name, each in answers.items()}, checkpoint.step)
            tracker.set_tags({DATA_TAG: world_sha256(trial.training.store_uri)})
            tracker.close()
        found[result.run_id] = answers
    return found


def _leaks(worlds: Iterable[PlantedHierarchy]) -> dict[str, dict[str, list[float]]]:
    """Split -> check -> its accuracy on each world."""
    found = [measure_leaks(world) for world in worlds]
    return {split: {name: [each[split][name] for each in found] for name in found[0][split]} for split in SPLITS}


def _log(config: ScienceConfig, root: Path, gates: Sequence[Gate], page_path: str) -> str:
    """A page that is made again in the same place replaces the one in its run."""
    tracker = open_run(replace(config.tracking, run_name="science"), str(root / RUN_FILE))
    said = {
        f"gate.{number:02d}": f"{gate.verdict}: {gate.name}: {gate.measured} ({gate.required})"
        for number, gate in enumerate(gates, 1)
    }
    with tracking_errors(tracker.uri):
        tracker.log_config(flatten_config(config), dump_config(config))
        tracker.set_tags(said)
        tracker.log_file(page_path)
        tracker.finish("FINISHED" if all(gate.holds for gate in gates) else "FAILED")
    return tracker.run_id
