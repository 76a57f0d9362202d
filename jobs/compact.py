"""Takes deleted and replaced samples out of a store's shards and merges small shards; nothing is decoded.

    python -m jobs.compact --config jobs/configs/compact.yaml store_uri=/data/store
    python -m jobs.compact --config jobs/configs/compact.yaml store_uri=/data/store keep_versions_days=0

Old shards are deleted when no version of the last keep_versions_days needs them; 0 deletes them at once, and a training
that pinned an older version cannot go on. drop_superseded=true leaves out the features of replaced encoders too.
Killed, the same command continues. Run again, it does nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from infra.cluster import connect, reject_relative_paths_in_job
from jobs.entry import run_job
from pipelines.ray_tasks import run_tasks
from pipelines.store.generation import ShardTask
from pipelines.store.upkeep.compact import CompactConfig, CompactSummary, compact


def job(config: CompactConfig) -> int:
    """Compact and print what was done."""
    reject_relative_paths_in_job({"store_uri": config.store_uri})
    with ExitStack() as stack:

        def on_ray(
            function: Callable[[ShardTask], list[dict[str, Any]]], tasks: Sequence[ShardTask]
        ) -> Iterable[list[dict[str, Any]]]:
            stack.enter_context(connect(config.cluster))
            return run_tasks(function, tasks)

        print(report(config, compact(config, on_ray)))
    return 0


def report(config: CompactConfig, done: CompactSummary) -> str:
    """Return what the job prints."""
    lines = [f"store      {config.store_uri}, version {done.version}"]
    if done.rewritten:
        lines += [
            f"moved      {done.num_samples} samples of {done.num_videos} videos from {_generations(done.rewritten)} "
            f"to generation {done.generation}",
            f"           {done.shards} shards instead of {done.shards_before}; dead samples left out: {done.num_dead}",
        ]
    if done.num_superseded:
        lines.append(f"           {done.num_superseded} of them were features of replaced encoders")
    if done.dropped or done.num_swept:
        lines.append(f"deleted    {_generations(done.dropped)}, {done.num_swept} files")
    if done.kept:
        lines.append(
            f"kept       {_generations(done.kept)}, {done.kept_bytes / 2**20:.1f} MiB: nothing in them is live, but "
            f"versions of the last {config.keep_versions_days:g} days need them"
        )
    nothing = not (done.rewritten or done.dropped or done.num_swept)
    return "\n".join([*lines, f"result     {'nothing to compact' if nothing else 'compacted'}"])


def _generations(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} generations ({', '.join(map(str, numbers))})" if numbers else "no generation"


if __name__ == "__main__":
    run_job("compact", __doc__, CompactConfig, job)
