"""The chain with trainings and answers that are made up; tests/pipelines/science/test_measure.py trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from hvlm.errors import JobError
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig
from hvlm.synthetic.planted_metrics import Answers
from infra.config_io import load_config
from infra.tracking import TrackingConfig, open_run
from pipelines.science import run as science
from pipelines.science.config import ScienceConfig
from pipelines.science.run import run_science, stage_sweeps
from pipelines.science.runs import STEP_METRICS
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trials import Trial, make_trials
from tests.pipelines.science.made_runs import answers, planted

TINY = PlantedHierarchyConfig(num_train=8, num_dev=4, num_test_seen=60, num_test_held_out=30)


@pytest.fixture
def config(tmp_path: Path, tracking: TrackingConfig) -> ScienceConfig:
    loaded = load_config(ScienceConfig, "jobs/configs/science.yaml", [f"output_path={tmp_path}/out", "seeds=[0,1]"])
    return replace(loaded, world=TINY, tracking=tracking)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Trials that ran, and what makes one fail or a method score otherwise."""
    seen: dict[str, Any] = {"trials": [], "failures": {}, "worse": {}}

    @contextmanager
    def connect(cluster: object) -> Iterator[None]:
        yield

    def run_sweep(sweep: SweepConfig) -> SimpleNamespace:
        trials = make_trials(sweep)
        seen["trials"] += trials
        for trial in trials:
            tracker = open_run(trial.training.tracking, f"{trial.output_uri}/run.json")
            tracker.set_tags({"sweep.method": trial.method, "sweep.seed": trial.seed})
            tracker.log_metrics(dict.fromkeys((*STEP_METRICS, "train/child/steps", "train/parent/steps"), 1.0), 1)
            tracker.close()
            seen[trial.output_uri] = SimpleNamespace(run_id=tracker.run_id)
        return SimpleNamespace(
            failures=seen["failures"], not_started=[], num_trials=len(trials), output_uri=sweep.output_uri
        )

    def measured(uri: str, world: object) -> dict[str, Answers]:
        method, seed = Path(uri).parts[-2:]
        return answers(planted(method, int(seed.removeprefix("seed-"))) | seen["worse"].get(method, {}))

    def result(trial: Trial) -> SimpleNamespace | None:
        return seen.get(trial.output_uri)

    monkeypatch.setattr(science, "connect", connect)
    monkeypatch.setattr(science, "run_sweep", run_sweep)
    monkeypatch.setattr(science, "finished_result", result)
    monkeypatch.setattr(science, "find_checkpoint", lambda uri, which: SimpleNamespace(uri=uri, step=2000))
    monkeypatch.setattr(science, "measure", measured)
    return seen


@pytest.fixture
def no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(science, "make_world", lambda *which: None)
    monkeypatch.setattr(science, "world_sha256", lambda store_uri: "0" * 64)


def test_worlds_trials_answers_gates_and_page(config: ScienceConfig, trained: dict[str, Any], tmp_path: Path) -> None:
    report = run_science(config, "the command")
    assert len(report.gates) == 13 and report.failed == []
    assert sorted(path.name for path in (tmp_path / "out/worlds").iterdir()) == [
        "permuted-0",
        "permuted-1",
        "planted-0",
        "planted-1",
        "shuffled-0",
        "shuffled-1",
    ]
    page = Path(report.page_path).read_text(encoding="utf-8")
    assert "13 of 13 gates hold" in page and "the command" in page
    client = MlflowClient(report.tracking_uri)
    datas = {found.data for found in report.runs}
    assert len(datas) == 6 and all(data[:12] in page for data in datas) and "words/order" in page
    for found in report.runs:
        assert client.get_run(found.run_id).data.metrics["planted/seen/order"] == found.planted("seen", "order")
    own = client.get_run(report.run_id)
    assert own.info.status == "FINISHED" and own.data.tags["gate.01"].startswith("holds: SA names the phases")
    assert [each.path for each in client.list_artifacts(report.run_id) if each.path.endswith("html")] == [
        "science.html"
    ]


@pytest.mark.usefixtures("no_worlds")
def test_a_gate_that_does_not_hold_is_named(config: ScienceConfig, trained: dict[str, Any]) -> None:
    trained["worse"] = {"avg": {"planted/seen/order": 0.7}}
    report = run_science(config, "c")
    assert [gate.name for gate in report.failed] == ["Avg knows no order: order"]
    assert MlflowClient(report.tracking_uri).get_run(report.run_id).info.status == "FAILED"


@pytest.mark.usefixtures("no_worlds")
def test_a_trial_that_failed_ends_the_benchmark(config: ScienceConfig, trained: dict[str, Any]) -> None:
    trained["failures"] = {"sa/seed-0": "out of memory"}
    with pytest.raises(JobError, match=r"1 of 12 trials in .*trials failed, e\.g\. sa/seed-0: out of memory"):
        run_science(config, "c")


def test_every_trial_has_its_own_world_and_start(config: ScienceConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trials = {trial.name: trial.training for sweep in stage_sweeps(config, out) for trial in make_trials(sweep)}
    assert len(trials) == 2 * 7 + 2 * 7 + 2
    assert trials["shuffled/seed-1"].store_uri == str(out / "worlds/shuffled-1/store")
    assert trials["sa/seed-1"].store_uri == str(out / "worlds/planted-1/store")
    assert trials["permuted/seed-1"].store_uri == str(out / "worlds/permuted-1/store")
    start = trials["wo_joint/seed-1"].start_checkpoint  # type: ignore[attr-defined]
    before = trials["child_1000/seed-1"]
    assert start == before.output_uri == str(out / "trials/child_1000/seed-1") and before.max_steps == 1000
    assert trials["two_workers/seed-0"].resources.num_workers == 2
