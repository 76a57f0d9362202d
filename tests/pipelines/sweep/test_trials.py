from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from infra.cluster import Bundle
from infra.config_io import load_config
from infra.tracking import TrackingConfig
from pipelines.evaluation import spread
from pipelines.evaluation.spread import EvaluateResources
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trials import expand, make_trials, needs, reserved, with_parent
from pipelines.training.config import TrainResources
from tests.pipelines.sweep.world import sweep, trials, write_yaml

NO_TEXT = {"model.alignment.enabled": False, "objective.text": 0.0}


def test_methods_times_grid_by_hand(tmp_path: Path) -> None:
    config = sweep(
        tmp_path,
        overrides={"epochs": 3, "log_every_steps": 1},
        methods={"full": {}, "flat": {"epochs": 2}},
        grid={"optimizer.lr": [0.001, 0.01], "encoders": [["clip"], ["clip", "c3d"]]},
    )
    shared = {"log_every_steps": 1}
    assert expand(config) == {
        "full_lr-0.001_encoders-clip": shared | {"epochs": 3, "optimizer.lr": 0.001, "encoders": ["clip"]},
        "full_lr-0.001_encoders-clip-c3d": shared | {"epochs": 3, "optimizer.lr": 0.001, "encoders": ["clip", "c3d"]},
        "full_lr-0.01_encoders-clip": shared | {"epochs": 3, "optimizer.lr": 0.01, "encoders": ["clip"]},
        "full_lr-0.01_encoders-clip-c3d": shared | {"epochs": 3, "optimizer.lr": 0.01, "encoders": ["clip", "c3d"]},
        "flat_lr-0.001_encoders-clip": shared | {"epochs": 2, "optimizer.lr": 0.001, "encoders": ["clip"]},
        "flat_lr-0.001_encoders-clip-c3d": shared | {"epochs": 2, "optimizer.lr": 0.001, "encoders": ["clip", "c3d"]},
        "flat_lr-0.01_encoders-clip": shared | {"epochs": 2, "optimizer.lr": 0.01, "encoders": ["clip"]},
        "flat_lr-0.01_encoders-clip-c3d": shared | {"epochs": 2, "optimizer.lr": 0.01, "encoders": ["clip", "c3d"]},
    }


def test_without_a_grid_the_methods_are_as_they_are(tmp_path: Path) -> None:
    assert expand(sweep(tmp_path, methods={"full": {}, "flat": NO_TEXT})) == {"full": {}, "flat": NO_TEXT}


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"epochs": [1, 1]}},
        {"grid": {"model.encoder": ["S", "-S"]}},
        {"methods": {"a": {}, "A": {}}},
    ],
)
def test_the_same_output_twice_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="methods and grid: got two trials with the output"):
        make_trials(sweep(tmp_path, **changes))


def test_every_method_and_seed_is_a_trial_seed_after_seed(tmp_path: Path) -> None:
    config = sweep(
        tmp_path,
        methods={"full": {}, "flat": NO_TEXT | {"evaluation.video_embedding": "mean"}},
        seeds=[3, 4],
        overrides={"evaluation.knn_k": 5},
    )
    found = make_trials(config)
    assert [trial.name for trial in found] == ["full/seed-3", "flat/seed-3", "full/seed-4", "flat/seed-4"]
    for trial in found:
        flat = trial.method == "flat"
        assert trial.output_uri == f"{tmp_path}/sweep/{trial.name}" == trial.training.output_uri
        assert trial.training.seed == trial.seed and trial.training.model.alignment.enabled is not flat
        assert trial.training.tracking == config.tracking
        evaluation = trial.evaluation
        assert evaluation is not None and evaluation.checkpoint == trial.output_uri and evaluation.output_uri is None
        assert (evaluation.video_embedding, evaluation.knn_k, evaluation.seed) == ("mean" if flat else "top", 5, 0)
    assert Path(found[0].training.store_uri).is_absolute(), "a worker has another folder"


def test_overrides_of_one_method_leave_the_others_alone(tmp_path: Path) -> None:
    """A mapping that all methods share is copied before a method sets a key in it."""
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16}
    config = sweep(
        tmp_path,
        overrides={"model.encoder": sizes},
        methods={"wide": {"model.encoder.d_ff": 64}, "full": {}},
    )
    widths = [trial.training.model.encoder.d_ff for trial in make_trials(config)]  # type: ignore[union-attr]
    assert widths == [64, 16] and sizes["d_ff"] == 16


def test_a_method_may_start_from_another_file(tmp_path: Path) -> None:
    """Another system has other sections; what all share still goes on top."""
    config = sweep(
        tmp_path,
        overrides={"epochs": 3, "store_uri": "/other"},
        methods={"full": {}, "moco": {"training": "jobs/configs/train_moco_demo.yaml", "moco.queue_size": 16}},
    )
    full, moco = (trial.training for trial in make_trials(config))
    assert (full.system, moco.system) == ("hierarchical_vlm", "moco")
    assert full.epochs == moco.epochs == 3 and full.store_uri == moco.store_uri == "/other"
    assert moco.moco.queue_size == 16  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"none\.yaml"):
        make_trials(sweep(tmp_path, methods={"lost": {"training": "none.yaml"}}))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"modle.encoder": "S"}, r"trial 'bad/seed-0', training .*modle is not a known key"),
        ({"objective.text": -1.0}, r"trial 'bad/seed-0'.*objective\.text: got -1\.0"),
        ({"seed.x": 1, "epochs.x": 1}, "the key 'seed.x'"),
        ({"epochs.x": 1}, r"trial 'bad/seed-0', override: got epochs\.x=1; expected 'epochs' to hold further keys"),
        ({"evaluation.knn": 5}, r"trial 'bad/seed-0', evaluation .*knn is not a known key"),
        ({"model.alignment.enabled": False}, r"trial 'bad/seed-0'.*objective\.text: got above 0"),
        ({"resources.num_workers": [1, 2]}, r"trial 'bad/seed-0', resources\.num_workers: got \(1, 2\)"),
        ({"evaluation.resources.num_actors": None}, r"resources\.num_actors: got null, which is the whole cluster"),
    ],
)
def test_a_wrong_method_is_named_with_its_key(tmp_path: Path, method: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_trials(sweep(tmp_path, methods={"good": {}, "bad": method}))


def test_an_evaluation_file_with_an_output_of_its_own_is_refused(tmp_path: Path) -> None:
    file = write_yaml(
        tmp_path / "evaluate.yaml", {"checkpoint": "x", "output_uri": "y", "resources": {"num_actors": 1}}
    )
    with pytest.raises(UserError, match="evaluation output_uri: got y; expected null"):
        make_trials(sweep(tmp_path, evaluation=file))


def test_a_submitted_sweep_needs_absolute_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="output_uri: got the relative path 'out'"):
        make_trials(sweep(tmp_path, output_uri="out"))
    with pytest.raises(UserError, match=r"overrides\.store_uri: got the relative path 'runs/smoke/store'"):
        make_trials(sweep(tmp_path))


def test_a_trial_stands_below_the_sweeps_run(tmp_path: Path) -> None:
    config = sweep(tmp_path, methods={"full": {}}, seeds=[2])
    config = replace(config, tracking=replace(config.tracking, tags={"team": "x"}))
    tracking = with_parent(make_trials(config)[0], config, "p1").training.tracking
    assert tracking.tags == {
        "team": "x",
        "mlflow.parentRunId": "p1",
        "sweep.id": "p1",
        "sweep.method": "full",
        "sweep.seed": "2",
    }
    assert tracking.run_name == "full/seed-2" and isinstance(tracking, TrackingConfig)


def test_what_a_trial_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trials(tmp_path, "full")[0]
    assert trial.evaluation is not None
    training = replace(trial.training, resources=TrainResources(num_workers=4, cpus_per_worker=2.0))
    evaluation = replace(trial.evaluation, resources=EvaluateResources(num_actors=2, num_cpus_per_actor=3.0))
    large = replace(trial, training=training, evaluation=evaluation)
    monkeypatch.setattr(spread, "total_resources", lambda: {"CPU": 8.0})
    assert needs(large, {"CPU": 8}) == [Bundle({"CPU": 2.0}, 4), Bundle({"CPU": 3.0, "GPU": 0.0}, 2)]
    assert needs(large, {"CPU": 8, "GPU": 8})[0] == Bundle({"CPU": 2.0, "GPU": 1.0}, 4)
    assert needs(replace(large, evaluation=None), {"CPU": 8}) == [Bundle({"CPU": 2.0}, 4)]


def test_what_is_kept_for_a_trial_covers_both_of_its_phases() -> None:
    assert reserved([Bundle({"CPU": 1.0}, 1), Bundle({"CPU": 1.0, "GPU": 0.0}, 1)]) == Bundle({"CPU": 1.0}, 1)
    assert reserved([Bundle({"CPU": 2.0, "GPU": 1.0}, 4), Bundle({"CPU": 3.0}, 6)]) == Bundle(
        {"CPU": 3.0, "GPU": 1.0}, 6
    )


@pytest.mark.parametrize("name", ["sweep_smoke", "sweep_ablations"])
def test_every_trial_of_the_examples_can_be_built(name: str) -> None:
    config = load_config(SweepConfig, f"jobs/configs/{name}.yaml")
    found = make_trials(config)
    assert len(found) == len(config.methods) * len(config.seeds)
    if name == "sweep_ablations":
        assert len(config.seeds) >= 3
    plain = [replace(trial.training, seed=0, output_uri="o") for trial in found[: len(config.methods)]]
    kinds = {repr((training, replace(t.evaluation, checkpoint="c"))) for training, t in zip(plain, found, strict=False)}  # type: ignore[type-var]
    assert len(kinds) == len(config.methods), "two methods that are the same"


def test_a_text_may_name_the_trials_seed(tmp_path: Path) -> None:
    found = make_trials(
        sweep(
            tmp_path,
            seeds=[0, 3],
            overrides={"store_uri": f"{tmp_path}/world-{{seed}}/store"},
            methods={"full": {}, "other": {"store_uri": f"{tmp_path}/other-{{seed}}", "evaluation.which": "latest"}},
        )
    )
    assert [(trial.name, Path(trial.training.store_uri).relative_to(tmp_path).as_posix()) for trial in found] == [
        ("full/seed-0", "world-0/store"),
        ("other/seed-0", "other-0"),
        ("full/seed-3", "world-3/store"),
        ("other/seed-3", "other-3"),
    ]
