"""Runs of a benchmark that needs no training."""

import numpy as np

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig
from hvlm.synthetic.planted_metrics import Answers, chance
from pipelines.science.measure import SPLITS, planted_metric
from pipelines.science.runs import TrialRun

CHANCE = chance(PlantedHierarchyConfig())
NUM_QUESTIONS = 400
GOOD = {
    "sa": {"easy": 0.86, "order": 0.9, "shuffle": 0.5, "shuffle_wrong": 0.25, "clip40": 0.65},
    "avg": {"order": 0.5, "shuffle": 0.2},
    "child_only": {"easy": 0.2, "clip40": 0.66},
    "no_positions": {"order": 0.5},
    "wo_joint": {"clip40": 0.36},
    "permuted": {},
}
"""Method -> metrics that are not at chance."""


def planted(method: str, seed: int) -> dict[str, float]:
    """Metrics as they are logged; seeds scatter a little where chance is not exact."""
    scatter = 0.0 if method == "avg" else (-1) ** seed * 0.001
    of_method = dict(CHANCE) | GOOD.get(method, {})
    return {planted_metric(split, name): value + scatter for split in SPLITS for name, value in of_method.items()}


def answers(metrics: dict[str, float]) -> dict[str, Answers]:
    """As many questions behind each, each worth its accuracy."""
    return {name: Answers(np.full(NUM_QUESTIONS, value)) for name, value in metrics.items()}


def trial_run(method: str, seed: int = 0, **steps: list[float]) -> TrialRun:
    """A run as MLflow would give it."""
    return TrialRun(
        method=method,
        seed=seed,
        run_id=f"{method}-{seed}",
        commit="abc",
        data=f"world{seed}",
        start_step=1000 if method == "wo_joint" else 0,
        answers=answers(planted(method, seed)),
        metrics=planted(method, seed) | {"train/child/steps": 1667.0, "train/parent/steps": 333.0},
        steps=steps,
    )
