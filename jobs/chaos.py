"""Proves that an extraction survives kills: kills it at random moments, resumes it, compares the stores.

    python -m jobs.chaos --config jobs/configs/chaos.yaml
    python -m jobs.chaos --config jobs/configs/chaos.yaml extract_config=my.yaml source_uri=/videos num_kills=50
    python -m jobs.chaos --config jobs/configs/chaos.yaml num_nodes=2 num_kills=20

Exit code 0: every store equals that of an undisturbed run; 1: something differs, each difference is printed, or a job
hung.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvlm.config import Config, require
from jobs.entry import run_job
from pipelines.extraction.chaos import run_chaos
from pipelines.extraction.chaos_cluster import TwoNodes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosConfig(Config):
    """How often what is killed.

    Args:
        extract_config: YAML of the extraction; its encoders must be deterministic (CPU, one thread).
        source_uri: the videos.
        output_path: a local folder that does not exist yet.
        overrides: further key=value of the extraction.
        num_kills: kills in all.
        kills_per_round: kills before a store is left to be finished and compared.
        seed: of the moments and targets.
        num_nodes: 1: each job starts its own Ray; 2: they join a cluster of two nodes, of which one is killed too.
    """

    extract_config: str
    source_uri: str
    output_path: str
    overrides: tuple[str, ...] = ()
    num_kills: int = 50
    kills_per_round: int = 4
    seed: int = 0
    num_nodes: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        for name in ("num_kills", "kills_per_round"):
            value = getattr(self, name)
            require(value >= 1, what=name, got=value, expected="at least 1", do=f"set e.g. {name}: 4")


def job(config: ChaosConfig) -> int:
    """Kill, resume, compare, and print the report."""
    root = Path(config.output_path).absolute()
    require(
        not root.exists(),
        what="output_path",
        got=root,
        expected="a folder that does not exist yet",
        do="delete it or name another",
    )

    with TwoNodes() if config.num_nodes == 2 else nullcontext() as nodes:
        join = [f"cluster.address={nodes.address}"] if nodes else []

        def command(store_uri: str) -> list[str]:
            start = [sys.executable, "-m", "jobs.extract", "--config", config.extract_config]
            return [*start, f"source.uri={config.source_uri}", f"store_uri={store_uri}", *config.overrides, *join]

        report = run_chaos(command, root, config.num_kills, config.seed, config.kills_per_round, nodes)
    print(f"kills        {report.kills.total()} in {report.rounds} stores (seed {config.seed})")
    for target, count in sorted(report.kills.items()):
        print(f"             {count} × {target}")
    print(
        f"after them   {report.survived} jobs went on by themselves, {report.hung} hung; all others were started again"
    )
    for line in report.differences:
        print(f"difference   {line}")
    same = "every store equals that of the undisturbed run, byte for byte"
    print(f"result       {f'{len(report.differences)} differences' if report.differences else same}")
    return 1 if report.differences or report.hung else 0


if __name__ == "__main__":
    run_job("chaos", __doc__, ChaosConfig, job)
