"""A sweep from config to table: every trial built and checked, those that are missing run beside each other.

    trials ─► finished before? ─► admitted while the cluster has room ─► train, evaluate (launcher) ─► table ─► MLflow

What is started is counted against the whole cluster from its start to its end, so that no two trials wait for each
other with half of what each needs. A trial that fails leaves the others alone; the same command goes on with it.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hvlm.errors import UserError
from infra import scratch, storage
from infra.cluster import Bundle, connect, has_room, require_resources, total_resources
from infra.config_io import dump_config, flatten_config
from infra.tracking import RunTracker, end_run, open_run, tracking_errors
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.launcher import Launcher, RayTasks
from pipelines.sweep.table import TableRow, csv_table, make_table
from pipelines.sweep.trial_run import TrialResult, finished_result, run_trial
from pipelines.sweep.trials import Trial, make_trials, needs, reserved, with_parent
from pipelines.training.prepare import RUN_FILE

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
JSON_FILE, CSV_FILE = "sweep.json", "sweep.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep gave. failures: trial name -> why. not_started: after too many failures."""

    rows: list[TableRow]
    num_trials: int
    num_known: int
    failures: dict[str, str]
    not_started: list[str]
    output_uri: str
    run_id: str
    tracking_uri: str


@dataclass(slots=True)
class Outcomes:
    """What became of the trials, by name; those in none of the two were not started."""

    results: dict[str, TrialResult] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """When a further trial may start.

    Args:
        room: whether the cluster holds all these at once. needs: trial name -> what is kept for it.
        max_concurrent, max_failed: of the config.
    """

    room: Callable[[Sequence[Bundle]], bool]
    needs: Mapping[str, Bundle]
    max_concurrent: int | None = None
    max_failed: int | None = None

    def admits(self, trial: Trial, running: Sequence[str]) -> bool:
        """Return whether the trial may start beside the running ones; alone it always may."""
        if not running:
            return True
        if self.max_concurrent is not None and len(running) >= self.max_concurrent:
            return False
        return self.room([self.needs[name] for name in (*running, trial.name)])

    def gives_up(self, num_failed: int) -> bool:
        """Return whether so many failures are too many to start another trial."""
        return self.max_failed is not None and num_failed > self.max_failed


def run_sweep(config: SweepConfig) -> SweepReport:
    """Run the trials that are not finished and return the table of all.

    Raises:
        UserError: a trial's configuration is wrong or asks more than the cluster has (nothing was started), or MLflow
            fails.
    """
    trials = make_trials(config)
    known = {trial.name: result for trial in trials if (result := finished_result(trial)) is not None}
    missing = [trial for trial in trials if trial.name not in known]
    output_uri = storage.absolute_uri(config.output_uri)
    with connect(config.cluster) if missing else nullcontext():
        kept = {trial.name: reserved(_checked_needs(trial)) for trial in missing}
        tracker = open_run(config.tracking, storage.join(output_uri, RUN_FILE))
        with tracker.finished_on_error():
            with tracking_errors(tracker.uri):
                tracker.log_config(flatten_config(config), dump_config(config))
                tracker.set_tags({"sweep.id": tracker.run_id, "output_uri": output_uri})
            outcomes = Outcomes()
            if missing:
                logger.info("%d trials to run, %d were finished before", len(missing), len(known))
                limits = Admission(
                    room=has_room, needs=kept, max_concurrent=config.max_concurrent, max_failed=config.max_failed
                )
                below = [with_parent(trial, config, tracker.run_id) for trial in missing]
                outcomes = run_trials(below, RayTasks(run_trial), limits)
            outcomes.results |= known
            report = _report(trials, outcomes, len(known), (output_uri, tracker))
    with tracking_errors(tracker.uri):
        tracker.finish("FAILED" if report.failures or report.not_started else "FINISHED")
    return report


def run_trials(trials: Sequence[Trial], launcher: Launcher, admission: Admission) -> Outcomes:
    """Run trials, in their order, as many at a time as are admitted; an interrupt ends those that run."""
    waiting, running = deque(trials), list[str]()
    outcomes = Outcomes()
    try:
        while True:
            while waiting and not admission.gives_up(len(outcomes.failures)) and admission.admits(waiting[0], running):
                running.append(waiting[0].name)
                launcher.start(waiting.popleft())
            if not running:
                return outcomes
            trial, result = launcher.next_done()
            running.remove(trial.name)
            done = len(outcomes.results) + len(outcomes.failures) + 1
            if isinstance(result, str):
                outcomes.failures[trial.name] = result
                logger.error("trial %d of %d, %s: failed: %s", done, len(trials), trial.name, result)
                _end_run(trial, "FAILED")
            else:
                outcomes.results[trial.name] = result
                logger.info("trial %d of %d, %s: %.0f s", done, len(trials), trial.name, result.duration_s)
    finally:
        for trial in launcher.cancel():
            _end_run(trial, "KILLED")


def _checked_needs(trial: Trial) -> list[Bundle]:
    phases = needs(trial, total_resources())
    for phase, key in zip(phases, ("resources.num_workers", "evaluation resources.num_actors"), strict=False):
        require_resources([phase], what=f"trial '{trial.name}', {key}")
    return phases


def _end_run(trial: Trial, status: Literal["FAILED", "KILLED"]) -> None:
    """A process that was killed left its MLflow run open."""
    with suppress(UserError):  # what ended the trial is the one to tell
        end_run(trial.training.tracking, storage.join(trial.output_uri, RUN_FILE), status)


def _report(trials: Sequence[Trial], outcomes: Outcomes, num_known: int, place: tuple[str, RunTracker]) -> SweepReport:
    """Write sweep.json and sweep.csv, log them to the sweep's run, and return the report."""
    output_uri, tracker = place
    results = [(trial, outcomes.results[trial.name]) for trial in trials if trial.name in outcomes.results]
    rows = make_table(results)
    content = {
        "format_version": FORMAT_VERSION,
        "run_id": tracker.run_id,
        "table": [asdict(row) for row in rows],
        "trials": [_trial_entry(trial, outcomes) for trial in trials],
    }
    files = {JSON_FILE: json.dumps(content, indent=1).encode() + b"\n", CSV_FILE: csv_table(rows)}
    for name, data in files.items():
        storage.atomic_write(storage.join(output_uri, name), data)
    with tracking_errors(tracker.uri), scratch.folder() as folder:
        for name, data in files.items():
            path = folder / name
            path.write_bytes(data)
            tracker.log_file(str(path))
    return SweepReport(
        rows=rows,
        num_trials=len(trials),
        num_known=num_known,
        failures=outcomes.failures,
        not_started=[t.name for t in trials if t.name not in outcomes.results.keys() | outcomes.failures.keys()],
        output_uri=output_uri,
        run_id=tracker.run_id,
        tracking_uri=tracker.uri,
    )


def _trial_entry(trial: Trial, outcomes: Outcomes) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": trial.name, "method": trial.method, "seed": trial.seed}
    if trial.name in outcomes.results:
        return entry | {"state": "finished"} | asdict(outcomes.results[trial.name])
    if trial.name in outcomes.failures:
        return entry | {"state": "failed", "reason": outcomes.failures[trial.name]}
    return entry | {"state": "not started"}
