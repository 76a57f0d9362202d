"""Re-reads every live shard of a feature store and compares it with the catalog.

    python -m jobs.verify --config jobs/configs/verify.yaml store_uri=runs/demo/store

Exit code 0: the store is whole; 1: something is wrong, each finding is printed with its shard, sample and video.
"""

from dataclasses import dataclass

from hvlm.config import Config, require
from jobs.entry import run_job
from pipelines.store.verify import verify_store


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig(Config):
    """What to verify.

    Args:
        store_uri: the feature store.
        version: of its `samples` table; null for the newest.
        num_threads: shards that are read at the same time.
        max_printed: findings that are printed; all are counted.
    """

    store_uri: str
    version: int | None = None
    num_threads: int = 4
    max_printed: int = 50

    def __post_init__(self) -> None:
        require(
            self.num_threads >= 1,
            what="num_threads",
            got=self.num_threads,
            expected="at least 1",
            do="set e.g. num_threads: 4",
        )
        require(
            self.max_printed >= 1,
            what="max_printed",
            got=self.max_printed,
            expected="at least 1",
            do="set e.g. max_printed: 50",
        )


def run(config: VerifyConfig) -> int:
    """Print the report and return the exit code."""
    report = verify_store(config.store_uri, config.version, config.num_threads)
    size = f"{report.num_samples} samples of {report.num_videos} videos, {report.num_bytes / 2**20:.1f} MiB"
    print(f"store      {config.store_uri}, version {report.version}")
    print(f"read       {report.num_shards} shards, {size}")
    if report.orphans:
        print(f"orphans    {len(report.orphans)} shards outside the catalog (the next publish removes them):")
        print(f"           {report.orphans[0]}")
    for problem in report.problems[: config.max_printed]:
        print(f"problem    {problem}")
    if len(report.problems) > config.max_printed:
        print(f"problem    and {len(report.problems) - config.max_printed} more")
    print(
        f"result     {f'{len(report.problems)} problems' if report.problems else 'every sample is as it was written'}"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    run_job("verify", __doc__, VerifyConfig, run)
