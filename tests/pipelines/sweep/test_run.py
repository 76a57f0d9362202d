"""Order, admission, failures and resume with a launcher that runs nothing; one real sweep end to end."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from infra.cluster import Bundle, has_room
from infra.tracking import open_run
from pipelines.sweep import run
from pipelines.sweep.run import Admission, run_sweep, run_trials
from pipelines.sweep.trial_run import TrialResult
from pipelines.sweep.trials import Trial, make_trials
from tests.pipelines.evaluation.planted_store import make_store
from tests.pipelines.sweep.world import result, sweep, trials


class FakeLauncher:
    """Ends the trial that was started first; `ends` says how. `most` is what ran at the same time."""

    def __init__(self, ends: Callable[[Trial], TrialResult | str] = lambda trial: result()) -> None:
        self.ends, self.running = ends, list[Trial]()
        self.started: list[str] = []
        self.most: set[str] = set()

    def start(self, trial: Trial) -> None:
        self.running.append(trial)
        self.started.append(trial.name)
        names = {each.name for each in self.running}
        self.most = max(self.most, names, key=len)

    def next_done(self) -> tuple[Trial, TrialResult | str]:
        trial = self.running[0]
        end = self.ends(trial)
        self.running.pop(0)
        return trial, end

    def cancel(self) -> list[Trial]:
        cancelled, self.running = self.running, []
        return cancelled


def admission(given: list[Trial], cpus: float, each: dict[str, float] | None = None, **limits: int) -> Admission:
    """A cluster of one node with these CPUs; `each`: method -> CPUs, 1 where it says nothing."""
    needs = {trial.name: Bundle({"CPU": (each or {}).get(trial.method, 1.0)}) for trial in given}
    return Admission(room=lambda bundles: sum(b.each["CPU"] * b.num for b in bundles) <= cpus, needs=needs, **limits)


def test_never_more_is_started_than_fits(tmp_path: Path) -> None:
    given = trials(tmp_path, "a", "b", "c", "d", "e")
    launcher = FakeLauncher()
    outcomes = run_trials(given, launcher, admission(given, 4, {"b": 3.0, "c": 2.0}))
    assert launcher.started == [f"{name}/seed-0" for name in "abcde"], "in their order"
    # a + b are 4 CPUs, c waits until both are done (b + c are 5), then d and e fit beside it
    assert launcher.most == {"c/seed-0", "d/seed-0", "e/seed-0"}
    assert outcomes.results.keys() == set(launcher.started) and outcomes.failures == {}


def test_max_concurrent_and_a_trial_that_fills_the_cluster(tmp_path: Path) -> None:
    given = trials(tmp_path, "a", "b", "c")
    launcher = FakeLauncher()
    run_trials(given, launcher, admission(given, 100, max_concurrent=2))
    assert len(launcher.most) == 2
    launcher = FakeLauncher()
    run_trials(given, launcher, admission(given, 0.5))
    assert len(launcher.most) == 1 and len(launcher.started) == 3, "alone a trial may always start"


def test_room_is_counted_on_the_nodes_of_the_cluster(tmp_path: Path, ray_cluster: None) -> None:
    """Two CPUs hold two trials of one CPU, not three."""
    needs = {name: Bundle({"CPU": 1.0}) for name in "abc"}
    rule = Admission(room=has_room, needs=needs)
    trial = make_trials(sweep(tmp_path))[0]
    rule = replace(rule, needs=needs | {trial.name: Bundle({"CPU": 1.0})})
    assert rule.admits(trial, ["a"]) and not rule.admits(trial, ["a", "b"])


def test_a_trial_that_fails_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = trials(tmp_path, "a", "bad", "b")
    outcomes = run_trials(
        given, FakeLauncher(lambda t: "no disk" if t.method == "bad" else result()), admission(given, 1)
    )
    assert outcomes.failures == {"bad/seed-0": "no disk"}
    assert list(outcomes.results) == ["a/seed-0", "b/seed-0"]
    assert "trial 2 of 3, bad/seed-0: failed: no disk" in caplog.text


@pytest.mark.parametrize(("max_failed", "started"), [(None, 4), (0, 1), (1, 3)])
def test_too_many_failures_start_nothing_more(tmp_path: Path, max_failed: int | None, started: int) -> None:
    given = trials(tmp_path, "bad1", "good", "bad2", "last")
    launcher = FakeLauncher(lambda trial: "no" if trial.method.startswith("bad") else result())
    rule = replace(admission(given, 1), max_failed=max_failed)
    outcomes = run_trials(given, launcher, rule)
    assert len(launcher.started) == started == len(outcomes.results) + len(outcomes.failures)


def test_an_interrupt_ends_what_runs_and_says_so_in_mlflow(tmp_path: Path) -> None:
    given = trials(tmp_path, "a", "b", "c")
    tracking = replace(given[0].training.tracking, uri=f"sqlite:///{tmp_path}/mlflow.db")
    given = [replace(trial, training=replace(trial.training, tracking=tracking)) for trial in given]
    runs = [open_run(tracking, f"{trial.output_uri}/run.json").run_id for trial in given[:2]]

    def interrupt(trial: Trial) -> TrialResult:
        raise KeyboardInterrupt

    launcher = FakeLauncher(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_trials(given, launcher, admission(given, 2))
    assert launcher.running == [] and len(launcher.started) == 2
    assert [MlflowClient(tracking.uri).get_run(each).info.status for each in runs] == ["KILLED", "KILLED"]


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> FakeLauncher:
    launcher = FakeLauncher()
    monkeypatch.setattr(run, "RayTasks", lambda run_trial: launcher)
    return launcher


def test_nothing_starts_when_one_trial_asks_too_much(tmp_path: Path, replaced: FakeLauncher) -> None:
    methods = {"full": {}, "wide": {"resources.num_workers": 4}}
    with pytest.raises(UserError, match=r"trial 'wide/seed-0', resources\.num_workers: got a need of 4 CPU"):
        run_sweep(sweep(tmp_path, methods=methods))
    many = {"full": {}, "wide": {"evaluation.resources.num_actors": 3}}
    with pytest.raises(UserError, match=r"trial 'wide/seed-0', evaluation resources\.num_actors: got a need of 3 CPU"):
        run_sweep(sweep(tmp_path, methods=many))
    assert replaced.started == [] and list(tmp_path.iterdir()) == []


def test_the_same_command_runs_what_is_missing(
    tmp_path: Path, replaced: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"a/seed-0": result(0.5)}
    monkeypatch.setattr(run, "finished_result", lambda trial: known.get(trial.name))
    replaced.ends = lambda trial: "no" if trial.name == "b/seed-1" else result(0.25)
    config = sweep(tmp_path, methods={"a": {}, "b": {}}, seeds=[0, 1])
    report = run_sweep(config)
    assert replaced.started == ["b/seed-0", "a/seed-1", "b/seed-1"]
    assert (report.num_trials, report.num_known, report.failures) == (4, 1, {"b/seed-1": "no"})
    assert [(row.method, row.n, row.mean) for row in report.rows] == [("a", 2, 0.375), ("b", 1, 0.25)]
    assert MlflowClient(report.tracking_uri).get_run(report.run_id).info.status == "FAILED"
    content = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [(trial["name"], trial["state"]) for trial in content["trials"]] == [
        ("a/seed-0", "finished"),
        ("b/seed-0", "finished"),
        ("a/seed-1", "finished"),
        ("b/seed-1", "failed"),
    ]

    known |= {name: result(0.25) for name in ("b/seed-0", "a/seed-1")}
    replaced.ends = lambda trial: result(0.75)
    again = run_sweep(config)
    assert replaced.started[3:] == ["b/seed-1"] and again.failures == {} and again.run_id == report.run_id
    client = MlflowClient(report.tracking_uri)
    parent = client.get_run(report.run_id)
    assert parent.info.status == "FINISHED" and parent.data.tags["sweep.id"] == report.run_id
    assert {file.path for file in client.list_artifacts(report.run_id)} == {"config.json", "sweep.csv", "sweep.json"}

    known["b/seed-1"] = result(0.75)
    monkeypatch.setattr(run, "connect", None)  # would be called
    assert run_sweep(config).num_known == 4 and len(replaced.started) == 4, "with nothing to do, Ray is not started"


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_sweep_is_killed_in_mlflow(
    tmp_path: Path, replaced: FakeLauncher, signal: type[BaseException]
) -> None:
    def interrupt(trial: Trial) -> TrialResult:
        raise signal

    replaced.ends = interrupt
    config = sweep(tmp_path)
    with pytest.raises(signal):
        run_sweep(config)
    run_id = json.loads((tmp_path / "sweep/run.json").read_text())["run_id"]
    assert MlflowClient(config.tracking.uri).get_run(run_id).info.status == "KILLED"


SMALL = {
    "max_steps": 4,
    "log_every_steps": 2,
    "checkpoint.every_steps": 4,
    "model.encoder": {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16},
    "evaluation.num_timelines": 0,
    "model.alignment.enabled": False,
    "objective.text": 0.0,
    "text.encoder": None,
}
"""Four steps without text: no process has to load a text tower."""


@pytest.mark.slow
def test_a_real_sweep_is_done_once_and_stands_below_its_run(tmp_path: Path, ray_cluster: None) -> None:
    """Two methods train and are evaluated beside each other; then nothing is left to do but one changed method."""
    store = make_store(tmp_path / "store", 16)
    methods = {"full": {}, "temporal": {"objective.weights": {"temporal": 1.0}}}
    config = sweep(tmp_path, overrides=SMALL | {"store_uri": store}, methods=methods)
    report = run_sweep(config)
    assert report.failures == {} and report.not_started == []
    assert {row.method for row in report.rows} == {"full", "temporal"}
    assert all(row.n == 1 and row.std is None for row in report.rows)

    client = MlflowClient(report.tracking_uri)
    children = client.search_runs(
        [client.get_run(report.run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{report.run_id}'"
    )
    tags = {child.info.run_name: child.data.tags for child in children}
    assert tags.keys() == {"full/seed-0", "temporal/seed-0"}
    assert {(t["sweep.id"], t["sweep.method"], t["sweep.seed"]) for t in tags.values()} == {
        (report.run_id, "full", "0"),
        (report.run_id, "temporal", "0"),
    }
    row = report.rows[0]
    assert next(c for c in children if c.info.run_name == f"{row.method}/seed-0").data.metrics[row.metric] == row.mean

    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "sweep/full").rglob("*") if file.is_file()}
    changed = replace(config, methods={"full": {}, "temporal": {"objective.weights": {"temporal": 2.0}}})
    again = run_sweep(changed)
    assert again.num_known == 1 and list(again.failures) == ["temporal/seed-0"]
    assert "begun with other values of objective.weights.temporal" in again.failures["temporal/seed-0"]
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "sweep/full").rglob("*") if file.is_file()}
