"""Re-reads every stored shard of a feature store and compares it with the catalog; extracts a share again if asked to.

    python -m jobs.verify --config jobs/configs/verify.yaml store_uri=runs/demo/store
    python -m jobs.verify --config jobs/configs/verify.yaml store_uri=runs/demo/store recompute=0.005 repair=true

recompute=0.005 decodes and encodes half a percent of the samples, drawn by chance, and compares them with what is
stored. repair=true extracts again what is damaged or differs, and nothing else; killed, the same command goes on. Both
need the videos, and hold the store's lease. Of videos that are gone or replaced a repair only marks what is damaged:
should they come back, they are decoded anew.

Exit code 0: the store is whole (after the repair); 1: something is wrong, each finding is printed with its shard,
sample and video, or nothing of what was drawn could be compared; 2: wrong input, or a storage that does not answer.
"""

import functools
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from hvlm.config import Config, require
from infra.cluster import reject_relative_paths_in_job
from infra.config_io import load_config
from jobs.entry import run_job
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.recompute import Extractor, RecomputeReport, recompute
from pipelines.extraction.remembered import remembered_config
from pipelines.store.catalog import FeatureStore
from pipelines.store.upkeep.repair import RepairReport, SampleId, repair
from pipelines.store.upkeep.verify import Problem, VerifyReport, verify_store


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig(Config):
    """What to verify.

    Args:
        store_uri: the feature store.
        version: of its `samples` table; null for the newest.
        num_threads: shards that are read at the same time.
        max_printed: findings that are printed; all are counted.
        recompute: share of the live samples that is extracted again and compared; 0 for none.
        seed: which samples are drawn.
        tolerance: how far a recomputed feature row may be from the stored one, as a share of its length. Measured: 0 on
            the same machine and threads, up to 7e-5 in fp32 with other threads or batches, up to 0.008 in bf16; rows
            that are a second apart differ by 0.08 (CLIP) to 0.8 (C3D) in the median.
        repair: extract again what is damaged or differs.
        extract_config: YAML of the extraction; null: the configuration of the last one, which the store remembers.
    """

    store_uri: str
    version: int | None = None
    num_threads: int = 4
    max_printed: int = 50
    recompute: float = 0.0
    seed: int = 0
    tolerance: float = 0.02
    repair: bool = False
    extract_config: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_threads", 1), ("max_printed", 1)):
            value = getattr(self, name)
            require(value >= least, what=name, got=value, expected=f"at least {least}", do=f"set e.g. {name}: 4")
        require(
            0 <= self.recompute <= 1,
            what="recompute",
            got=self.recompute,
            expected="a share from 0 to 1",
            do="set e.g. recompute: 0.005 for half a percent",
        )
        require(self.tolerance >= 0, what="tolerance", got=self.tolerance, expected="0 or more", do="set e.g. 0.02")
        require(
            self.version is None or not (self.repair or self.recompute),
            what="version",
            got=self.version,
            expected="null with recompute or repair: they work on the newest version",
            do="leave it out",
        )


def run(config: VerifyConfig) -> int:
    """Print the report and return the exit code."""
    reject_relative_paths_in_job({"store_uri": config.store_uri})
    report = verify_store(config.store_uri, config.version, config.num_threads)
    _print_read(config, report)
    _print_problems(config, report.problems)
    if not (config.recompute or config.repair):
        return _result(report.problems)
    store = FeatureStore.open(config.store_uri)
    proved = True
    with store.writing("jobs.verify"), ExitStack() as stack:
        extractor = functools.cache(lambda: Extractor(_extraction(config, store), store, stack))
        problems = report.problems
        if config.recompute:
            damaged = frozenset(problem.shard for problem in problems)
            compared = recompute(store, extractor(), config.recompute, config.seed, config.tolerance, damaged)
            proved = compared.compared > 0
            _print_recomputed(config, compared)
            problems += compared.problems
        if config.repair and problems:
            # Dead samples alone need no extraction, so no configuration of one.
            done = repair(store, problems, lambda samples: extractor()(samples))
            _print_repaired(config, done, sum(problem.in_catalog for problem in problems))
            report = verify_store(config.store_uri, None, config.num_threads)
            _print_read(config, report)
            _print_problems(config, report.problems)
            problems = report.problems
    return _result(problems, proved)


def _extraction(config: VerifyConfig, store: FeatureStore) -> ExtractConfig:
    if config.extract_config is None:
        return remembered_config(store)
    return load_config(ExtractConfig, config.extract_config, [f"store_uri={store.uri}"])


def _print_read(config: VerifyConfig, report: VerifyReport) -> None:
    size = f"{report.num_samples} samples of {report.num_videos} videos, {report.num_bytes / 2**20:.1f} MiB"
    print(f"store      {config.store_uri}, version {report.version}")
    print(f"read       {report.num_shards} shards, {size}")
    if report.num_dead:
        print(f"           {report.num_dead} samples of them are not live any more; their features may be used again")
    if report.num_lost:
        print(f"lost       {report.num_lost} samples that are not live any more are marked as damaged, and not read")
    if report.orphans:
        print(f"orphans    {len(report.orphans)} shards outside the catalog (the next publish removes them):")
        print(f"           {report.orphans[0]}")


def _print_problems(config: VerifyConfig, problems: Iterable[Problem]) -> None:
    _print_some(config, "problem", [str(problem) for problem in problems])


def _print_recomputed(config: VerifyConfig, report: RecomputeReport) -> None:
    print(f"recomputed {report.compared} of {report.chosen} samples that were drawn (seed {config.seed})")
    above = f"{len(report.problems)} above tolerance={config.tolerance:g}"
    print(f"           largest difference {report.largest:.2g} of a row's length, {above}")
    if report.num_others:
        print(f"           {report.num_others} samples were not drawn: the configuration has not their encoders")
    _print_problems(config, report.problems)
    _print_reasons(config, "skipped", report.skipped)


def _print_repaired(config: VerifyConfig, report: RepairReport, num_in_catalog: int) -> None:
    print(f"repaired   {len(report.extracted)} videos were extracted again")
    if num_in_catalog:
        print(
            f"catalog    {num_in_catalog} problems are not of the shards; a repair lets them be, each says what to do"
        )
    _print_some(config, "mended", [f"{shard}: it has its old bytes again" for shard in report.mended])
    _print_some(config, "moved", [f"{shard}: its videos stand in a new generation" for shard in report.moved])
    _print_reasons(config, "failed", report.failed)
    gone = "its video is gone or replaced; it is marked, and no source of features any more"
    _print_reasons(config, "lost", dict.fromkeys(report.lost - set(report.failed), gone))


def _print_reasons(config: VerifyConfig, name: str, reasons: dict[SampleId, str]) -> None:
    lines = [f"video '{video_id}' by {encoder}: {why}" for (video_id, encoder, _), why in sorted(reasons.items())]
    _print_some(config, name, lines)


def _print_some(config: VerifyConfig, name: str, lines: list[str]) -> None:
    for line in lines[: config.max_printed]:
        print(f"{name:<10} {line}")
    if len(lines) > config.max_printed:
        print(f"{name:<10} and {len(lines) - config.max_printed} more")


def _result(problems: tuple[Problem, ...], proved: bool = True) -> int:
    whole = "every sample is as it was written" if proved else "nothing was compared: no video could be extracted again"
    print(f"result     {f'{len(problems)} problems' if problems else whole}")
    return 1 if problems or not proved else 0


if __name__ == "__main__":
    run_job("verify", __doc__, VerifyConfig, run)
