"""Proves that an extraction survives kills: kills it at random moments, resumes it, compares the stores.

    python -m jobs.chaos --config jobs/configs/chaos.yaml
    python -m jobs.chaos --config jobs/configs/chaos.yaml extract_config=my.yaml source_uri=/videos num_kills=50
    python -m jobs.chaos --config jobs/configs/chaos.yaml num_nodes=2 num_kills=20

For every second store the source, a copy, changes too, each time the job is dead: a video is added, replaced, deleted
or renamed.

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
from pipelines.chaos.cluster import TwoNodes
from pipelines.chaos.run import ChaosReport, KillPlan, run_chaos


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosConfig(Config):
    """How often what is killed.

    Args:
        extract_config: YAML of the extraction; its encoders must be deterministic (CPU, one thread).
        source_uri: the videos; with `change_source` a local folder.
        output_path: a local folder that does not exist yet.
        overrides: further key=value of the extraction.
        num_kills: kills in all.
        kills_per_round: kills before a store is left to be finished and compared.
        change_source: in every second store, change a copy of the source between a kill and the resume.
        seed: of the moments, targets and changes.
        num_nodes: 1: each job starts its own Ray; 2: they join a cluster of two nodes, of which one is killed too.
    """

    extract_config: str
    source_uri: str
    output_path: str
    overrides: tuple[str, ...] = ()
    num_kills: int = 50
    kills_per_round: int = 4
    change_source: bool = True
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
    require(
        not config.change_source or Path(config.source_uri).is_dir(),
        what="source_uri",
        got=config.source_uri,
        expected="a local folder: a copy of it is changed between kills",
        do="name a folder, or set change_source=false",
    )
    with TwoNodes() if config.num_nodes == 2 else nullcontext() as nodes:
        join = [f"cluster.address={nodes.address}"] if nodes else []

        def command(store_uri: str, source_uri: str) -> list[str]:
            start = [sys.executable, "-m", "jobs.extract", "--config", config.extract_config]
            return [*start, f"source.uri={source_uri}", f"store_uri={store_uri}", *config.overrides, *join]

        plan = KillPlan(
            num_kills=config.num_kills,
            seed=config.seed,
            per_round=config.kills_per_round,
            change_source=config.change_source,
        )
        report = run_chaos(command, config.source_uri, root, plan, nodes)
    print_report(config, report)
    return 1 if report.differences or report.hung else 0


def print_report(config: ChaosConfig, report: ChaosReport) -> None:
    """Say what was killed and what came of it."""
    print(f"kills        {report.kills.total()} in {report.rounds} stores (seed {config.seed})")
    for target, count in sorted(report.kills.items()):
        print(f"             {count} × {target}")
    print(
        f"after them   {report.survived} jobs went on by themselves, {report.hung} hung; all others were started again,"
        f" {report.changes} of them over a source that had changed"
    )
    for line in report.differences:
        print(f"difference   {line}")
    same = "every store equals that of an undisturbed run, byte for byte"
    if report.changes:
        same += " (where the source changed: sample for sample, whatever their order)"
    print(f"result       {f'{len(report.differences)} differences' if report.differences else same}")


if __name__ == "__main__":
    run_job("chaos", __doc__, ChaosConfig, job)
