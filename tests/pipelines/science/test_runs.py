from pathlib import Path

import pytest

from hvlm.errors import UserError
from infra.tracking import RunTracker, TrackingConfig, open_run
from pipelines.science.runs import DATA_TAG, STEP_METRICS, by_method, by_step, read_trial_runs
from tests.pipelines.science.made_runs import NUM_QUESTIONS, answers, planted, trial_run


def logged(tracking: TrackingConfig, folder: Path, method: str, seed: int) -> RunTracker:
    tracker = open_run(tracking, str(folder / f"{method}-{seed}.json"))
    tracker.set_tags({"sweep.method": method, "sweep.seed": seed, DATA_TAG: f"world{seed}"})
    if method == "wo_joint":
        tracker.set_tags({"start.step": 1000})
    for step in (1, 2, 3):
        tracker.log_metrics(dict.fromkeys(STEP_METRICS, step / 4), step)
    tracker.log_metrics(planted(method, seed) | {"train/child/steps": 3.0, "train/parent/steps": 0.0}, 3)
    tracker.close()
    return tracker


def test_runs_are_read_from_mlflow(tmp_path: Path, tracking: TrackingConfig) -> None:
    trackers = [logged(tracking, tmp_path, *which) for which in (("sa", 4), ("two_workers", 0), ("wo_joint", 4))]
    of_run = answers(planted("sa", 4))
    sa, two, wo_joint = read_trial_runs(trackers[0].uri, {each.run_id: of_run for each in trackers})
    assert (sa.method, sa.seed, sa.run_id, sa.steps) == ("sa", 4, trackers[0].run_id, {})
    assert sa.planted("held_out", "order") == planted("sa", 4)["planted/held_out/order"]
    assert len(sa.credit("seen", "order")) == NUM_QUESTIONS and sa.data == "world4"
    assert (sa.updates("child"), sa.updates("parent"), sa.start_step, wo_joint.start_step) == (3, 0, 0, 1000)
    assert two.steps == {name: [0.25, 0.5, 0.75] for name in STEP_METRICS}
    with pytest.raises(UserError, match="MLflow tracking"):
        read_trial_runs(trackers[0].uri, {"0" * 32: {}})


def test_values_stand_in_the_order_of_the_seeds() -> None:
    runs = [trial_run("sa", 2), trial_run("sa", 1), trial_run("avg", 1), trial_run("one_worker", 0, norm=[1.0, 2.0])]
    assert by_method(runs, ["order"], "seen") == {"avg": {"order": [0.5]}, "sa": {"order": [0.899, 0.901]}}
    assert by_step(runs) == {"one_worker": {"norm": [1.0, 2.0]}}
