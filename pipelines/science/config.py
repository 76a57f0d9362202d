"""Configuration of `jobs.science`."""

from dataclasses import dataclass, field
from typing import Any

from hvlm.config import Config, require
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig

METHODS = ("sa", "avg", "no_positions", "child_only", "wo_joint", "permuted", "one_worker", "two_workers")
"""Methods that the gates ask about; there may be others beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig(Config):
    """One sweep: `methods` as in jobs.sweep; `seeds` null: those of all."""

    methods: dict[str, dict[str, Any]]
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScienceConfig(Config):
    """The planted worlds of all seeds, the methods that are trained on them, and where it all goes.

    Args:
        output_path: local folder: worlds, one folder for each stage, and the page.
        training: the jobs.train file that every trial starts from.
        stages: sweeps in their order, by name: what needs another trial's weights stands in a later one. In text values
            `{output_path}` and `{seed}` stand for the folder and the trial's seed.
        seeds: of world, weights and batches; at least 2, for the intervals.
        world: of each seed.
        tracking: of this run and the sweeps' runs, as in jobs.sweep.
        cluster: that the trials share.
    """

    output_path: str
    training: str
    stages: dict[str, StageConfig]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    world: PlantedHierarchyConfig = field(default_factory=PlantedHierarchyConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(
            len(set(self.seeds)) == len(self.seeds) >= 2 and min(self.seeds) >= 0,
            what="seeds",
            got=self.seeds,
            expected="2 or more different numbers of 0 or more",
            do="set e.g. seeds: [0, 1, 2, 3, 4]",
        )
        named = [name for stage in self.stages.values() for name in stage.methods]
        require(
            len(set(named)) == len(named) and set(METHODS) <= set(named),
            what="stages",
            got=f"the methods {', '.join(named)}",
            expected=f"each once, and among them {', '.join(METHODS)}",
            do="see jobs/configs/science.yaml",
        )
        strange = {seed for stage in self.stages.values() for seed in stage.seeds or ()} - set(self.seeds)
        require(
            not strange,
            what="stages, seeds",
            got=sorted(strange),
            expected=f"some of {self.seeds}, which have a world",
            do="add them to seeds",
        )
