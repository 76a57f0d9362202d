"""Configuration of `jobs.sweep`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hvlm.config import Config, require
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig

EVALUATION = "evaluation."
"""Overrides whose key begins so are the evaluation's, all others the training's."""

TRAINING = "training"
"""The override that names another jobs.train file, e.g. of another system; the other overrides go on top of it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # a method is a folder and an MLflow tag
_SET_BY_THE_SWEEP = {
    "": ("seed", "output_uri", "tracking", "cluster"),
    EVALUATION: ("checkpoint", "run_id", "output_uri", "tracking", "cluster"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig(Config):
    """Every method with every seed is one trial: a training and its evaluation, in `{output_uri}/{method}/seed-{n}`.

    Args:
        training: the jobs.train file that every trial starts from. evaluation: of jobs.evaluate; null: none, and the
            table has the dev metrics of the trainings.
        overrides: `{dotted.key: value}` for every trial, of the training or, after `evaluation.`, of the evaluation;
            `training` names another file to start from. In a text `{seed}` stands for the trial's seed, here and in
            methods and grid.
        methods: name -> the same for the trials of one method; {} is the training as it is.
        grid: dotted key -> values; every method is multiplied by all their combinations.
        seeds: of the trainings. The evaluation's seed is its file's, so that all are measured alike.
        max_concurrent: trials at a time; null: as many as the cluster has room for.
        max_failed: more failed trials than this and no further one is started; null: all are tried.
        tracking: of the sweep's run and of the trials' runs below it; that of the training's file is not used.
        cluster: that all trials share; those of the two files are not used.
    """

    training: str
    evaluation: str | None = None
    output_uri: str
    methods: dict[str, dict[str, Any]]
    overrides: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    max_concurrent: int | None = None
    max_failed: int | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(len(self.methods) > 0, what="methods", got="none", expected="one or more", do="name e.g. base: {}")
        for name in self.methods:
            require(
                _NAME.fullmatch(name) is not None,
                what="methods",
                got=f"the name '{name}'",
                expected="letters, digits and _ . + -",
                do="rename it: it becomes a folder",
            )
        require(
            len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0,
            what="seeds",
            got=self.seeds,
            expected="different numbers of 0 or more",
            do="set e.g. seeds: [0, 1, 2]",
        )
        for name, least in (("max_concurrent", 1), ("max_failed", 0)):
            value = getattr(self, name)
            require(
                value is None or value >= least,
                what=name,
                got=value,
                expected=f"{least} or more",
                do="leave it out, or raise it",
            )
        self._check_grid()
        places = {"overrides": self.overrides, "grid": self.grid}
        for place, changes in (places | {f"methods.{name}": each for name, each in self.methods.items()}).items():
            self._check_keys(place, changes)

    def _check_grid(self) -> None:
        for key, values in self.grid.items():
            require(len(values) > 0, what=f"grid.{key}", got="no value", expected="one or more", do="list its values")
            twice = [name for name, changes in self.methods.items() if key in changes]
            require(
                not twice,
                what=f"grid.{key}",
                got=f"a key that the method '{twice[:1]}' sets too",
                expected="it in one of the two",
                do="take it out of the other",
            )

    def _check_keys(self, place: str, changes: Mapping[str, Any]) -> None:
        for key in changes:
            prefix = EVALUATION if key.startswith(EVALUATION) else ""
            require(
                key.removeprefix(prefix).partition(".")[0] not in _SET_BY_THE_SWEEP[prefix],
                what=place,
                got=f"the key '{key}'",
                expected=f"none of {', '.join(_SET_BY_THE_SWEEP[prefix])}: the sweep sets them",
                do="take it out; seeds, output_uri, tracking and cluster are keys of the sweep itself",
            )
            require(
                self.evaluation is not None or not key.startswith(EVALUATION),
                what=place,
                got=f"the key '{key}' in a sweep without evaluation",
                expected="keys of the training alone",
                do="take it out, or name an evaluation file",
            )
