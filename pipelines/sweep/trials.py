"""From a sweep's configuration to its trials: every name, override and configuration is checked before one starts."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hvlm.config import require
from hvlm.errors import UserError
from infra import storage
from infra.cluster import Bundle, reject_relative_paths_in_job
from infra.config_io import build_config, load_yaml, set_values
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.registry import EVALUATE_CONFIG
from pipelines.evaluation.spread import embedders
from pipelines.sweep.config import EVALUATION, TRAINING, SweepConfig
from pipelines.training.config import TrainConfig
from pipelines.training.registry import TRAIN_CONFIG
from pipelines.training.trainer import scaling

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One method with one seed: a training and what is measured of it."""

    method: str
    seed: int
    training: TrainConfig
    evaluation: EvaluateConfig | None

    @property
    def name(self) -> str:
        """The trial's folder below the sweep's output."""
        return f"{self.method}/seed-{self.seed}"

    @property
    def output_uri(self) -> str:
        """Where the training, its evaluation and the trial's record are."""
        return self.training.output_uri


def make_trials(config: SweepConfig) -> list[Trial]:
    """Return the trials, seed after seed, so that a sweep cut short has compared all methods on the first ones.

    Raises:
        UserError: naming the trial and the key that is unknown, wrong or cannot be shared with other trials.
    """
    reject_relative_paths_in_job({"output_uri": config.output_uri})
    evaluation = None if config.evaluation is None else load_yaml(config.evaluation)
    methods = expand(config)
    return [
        _trial(config, (method, seed), evaluation, changes)
        for seed in config.seeds
        for method, changes in methods.items()
    ]


def expand(config: SweepConfig) -> dict[str, dict[str, Any]]:
    """Return method name -> overrides, each method of the grid with a name of its own: `flat_lr-0.001`.

    Raises:
        UserError: two of them would have the same name and so the same output.
    """
    combinations = [dict(zip(config.grid, values, strict=True)) for values in itertools.product(*config.grid.values())]
    named = [
        (_name(method, point), config.overrides | changes | point)
        for method, changes in config.methods.items()
        for point in combinations
    ]
    counts = Counter(name.lower() for name, _ in named)  # some disks know no capitals
    twice = next((name for name, _ in named if counts[name.lower()] > 1), None)
    require(
        twice is None,
        what="methods and grid",
        got=f"two trials with the output {config.output_uri}/{twice}",
        expected="one output for each",
        do="rename a method, or take equal values out of the grid",
    )
    return dict(named)


def with_parent(trial: Trial, config: SweepConfig, parent_run_id: str) -> Trial:
    """Return the trial with its training's MLflow run below the sweep's."""
    tags = {
        "mlflow.parentRunId": parent_run_id,
        "sweep.id": parent_run_id,
        "sweep.method": trial.method,
        "sweep.seed": str(trial.seed),
    }
    tracking = replace(config.tracking, run_name=trial.name, tags=config.tracking.tags | tags)
    return replace(trial, training=replace(trial.training, tracking=tracking))


def needs(trial: Trial, cluster: dict[str, float]) -> list[Bundle]:
    """Return what the training asks of a cluster with these total resources, and what the evaluation asks of it."""
    wanted = scaling(trial.training.resources, cluster)
    training = Bundle(dict(wanted.resources_per_worker), trial.training.resources.worker_range[1])
    return [training] if trial.evaluation is None else [training, embedders(trial.evaluation.resources)]


def reserved(phases: list[Bundle]) -> Bundle:
    """Return one bundle that covers each phase of a trial: what is kept free for it from start to end."""
    names = {name for phase in phases for name, amount in phase.each.items() if amount > 0}
    each = {name: max(phase.each.get(name, 0.0) for phase in phases) for name in names}
    return Bundle(each, max(phase.num for phase in phases))


def _name(method: str, point: Mapping[str, Any]) -> str:
    parts = [f"{key.rpartition('.')[2]}-{_text(value)}" for key, value in point.items()]
    return "_".join([method, *parts])


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return _NOT_IN_A_NAME.sub("-", text).strip("-")


def _trial(
    config: SweepConfig,
    which: tuple[str, int],
    evaluation_values: dict[str, Any] | None,
    changes: Mapping[str, Any],
) -> Trial:
    method, seed = which
    changes = {key: _of_seed(value, seed) for key, value in changes.items()}
    output_uri = storage.join(storage.absolute_uri(config.output_uri), method, f"seed-{seed}")
    place = f"trial '{method}/seed-{seed}'"
    of_training = {key: value for key, value in changes.items() if not key.startswith(EVALUATION)}
    file = str(of_training.pop(TRAINING, config.training))
    of_training |= {"seed": seed, "output_uri": output_uri}
    values = _changed(place, load_yaml(file), of_training)
    training = build_config(TRAIN_CONFIG, values, origin=f"{place}, training {file}")
    require(
        isinstance(training.resources.num_workers, int),
        what=f"{place}, resources.num_workers",
        got=training.resources.num_workers,
        expected="one number: trials share the cluster, and none may grow into another's place",
        do="add e.g. overrides: {resources.num_workers: 1}",
    )
    reject_relative_paths_in_job({"overrides.store_uri": training.store_uri})
    training = replace(
        training, store_uri=storage.absolute_uri(training.store_uri), tracking=config.tracking, cluster=config.cluster
    )
    evaluation = None
    if evaluation_values is not None:
        of_evaluation = {k.removeprefix(EVALUATION): v for k, v in changes.items() if k.startswith(EVALUATION)}
        values = _changed(place, evaluation_values, of_evaluation | {"checkpoint": output_uri, "run_id": None})
        evaluation = build_config(EVALUATE_CONFIG, values, origin=f"{place}, evaluation {config.evaluation}")
        evaluation = _shareable(place, evaluation, config)
    return Trial(method=method, seed=seed, training=training, evaluation=evaluation)


def _of_seed(value: Any, seed: int) -> Any:
    return value.replace("{seed}", str(seed)) if isinstance(value, str) else value


def _shareable(place: str, evaluation: EvaluateConfig, config: SweepConfig) -> EvaluateConfig:
    require(
        evaluation.output_uri is None,
        what=f"{place}, evaluation output_uri",
        got=evaluation.output_uri,
        expected="null: each evaluation stands beside its training",
        do=f"take it out of {config.evaluation}",
    )
    require(
        evaluation.resources.num_actors is not None,
        what=f"{place}, evaluation resources.num_actors",
        got="null, which is the whole cluster",
        expected="a number, as trials share the cluster",
        do="add overrides: {evaluation.resources.num_actors: 1}",
    )
    store_uri = None if evaluation.store_uri is None else storage.absolute_uri(evaluation.store_uri)
    return replace(evaluation, store_uri=store_uri, tracking=None, cluster=config.cluster)


def _changed(place: str, values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return set_values(values, changes)
    except UserError as error:
        raise UserError(what=f"{place}, {error.what}", got=error.got, expected=error.expected, do=error.do) from error
