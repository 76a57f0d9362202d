"""Publish: the complete videos of the snapshot become shards. Safe to kill at any moment and to run again.

Order of the writes: (1) shards and their manifests under final names that no catalog row mentions yet, (2) ONE append
to `samples`, which is the commit, (3) staged rows of published videos are dropped, (4) files that nothing refers to are
deleted. A kill before (2) leaves files that the next publish writes again with the same bytes, or deletes; a kill after
(2) leaves (3) and (4) to the next publish.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from hvlm.config import Config, require
from hvlm.data.keys import video_key
from hvlm.data.splits import SplitConfig
from infra import storage
from pipelines.store.catalog import FeatureStore, StoreFrames
from pipelines.store.encoders import EncoderColumn, describe_encoders
from pipelines.store.generation import GenerationPlan, ShardTask, plan_generation, readiness_of, set_folder, shard_tasks
from pipelines.store.liveness import is_source, live_samples, selected_encoders
from pipelines.store.odd_rows import OddRows, check_odd_rows
from pipelines.store.packing import remember_packing
from pipelines.store.schema import SAMPLES
from pipelines.store.shards import damaged_segments, set_manifest, write_shard
from pipelines.store.staging import FEATURES_FOLDER, DamagedSegmentError, discard_damaged, remove_tars, sweep_orphans

logger = logging.getLogger(__name__)

RunTasks = Callable[[Callable[[ShardTask], list[dict[str, Any]]], Sequence[ShardTask]], Iterable[list[dict[str, Any]]]]
_LEAST_SHARD_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig(Config):
    """How samples are packed.

    Args:
        target_shard_bytes: a shard is cut before it passes this, summed over the encoders of the configuration.
        max_odd_fraction: nothing is published when more than this share of a shard's rows is constant, or equal to a
            row of another video, or, in a shard of ten videos or more, to a row of the same video.
        splits: how videos are spread over train, dev, val and test.
    """

    target_shard_bytes: int = 256 * 2**20
    max_odd_fraction: float = 0.5
    splits: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        least = _LEAST_SHARD_BYTES
        got = self.target_shard_bytes
        require(
            got >= least,
            what="publish.target_shard_bytes",
            got=got,
            expected=f"at least {least}",
            do="set e.g. 268435456 (256 MiB)",
        )
        require(
            0 <= self.max_odd_fraction <= 1,
            what="publish.max_odd_fraction",
            got=self.max_odd_fraction,
            expected="a fraction from 0 to 1",
            do="set e.g. 0.5",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSummary:
    """What a publish did. published + already_published + incomplete + failed = videos of the snapshot.

    Args:
        num_odd: counts of odd rows in the shards written (see `OddRows`).
    """

    published: int
    already_published: int
    incomplete: int
    failed: int
    tombstoned: int
    shards: int
    samples: int
    shard_bytes: int
    version: int
    num_odd: Mapping[str, int]


def run_inline(
    function: Callable[[ShardTask], list[dict[str, Any]]], tasks: Sequence[ShardTask]
) -> Iterator[list[dict[str, Any]]]:
    """Write the shards one after another in this process."""
    return map(function, tasks)


def publish(
    store: FeatureStore, config: PublishConfig, encoders: Mapping[str, EncoderColumn], run_tasks: RunTasks = run_inline
) -> PublishSummary:
    """Publish every complete video of the snapshot; with nothing to publish, nothing is written.

    Staged segments whose bytes are damaged are dropped, and their videos wait until an extraction has made them again.

    Args:
        encoders: all encoders of the configuration; a video is complete when each of them is.
        run_tasks: maps `write_shard` over the tasks and yields the results in any order (e.g. as Ray tasks).

    Raises:
        RuntimeError: rows were lost.
        OddRowsError: too many rows of a shard are constant, or stand in several videos or more than once.
        JobError: another job published meanwhile.
        UserError: the disk is full.
    """
    version = store.samples_version()
    frames = store.frames()
    fingerprints = {name: column.fingerprint for name, column in encoders.items()}
    readiness = readiness_of(frames, fingerprints, config.splits)
    if readiness.to_place:
        frames = store.frames(full=True)
    plan = plan_generation(frames, readiness, fingerprints, config.splits, config.target_shard_bytes)
    _check_conservation(frames, plan)
    tasks = shard_tasks(plan, frames, encoders, store.uri, store.lease_token()) if plan.placements else []
    if tasks:
        describe_encoders(store.uri, encoders)
        remember_packing(store, config.target_shard_bytes)
    rows = [row for result in run_tasks(_write_or_find_damage, tasks) for row in result]
    if damaged := [row for row in rows if "tar" in row]:
        discard_damaged(store, damaged)
        return publish(store, config, encoders, run_tasks)  # the others; all tasks have ended, so none writes late
    check_written(plan, tasks, rows)
    check_odd_rows(rows, config.max_odd_fraction)
    write_manifests(store, rows)
    version = commit(store, frames.samples, plan, rows, fingerprints, version)
    clean_up(store, fingerprints)
    return PublishSummary(
        published=len({placement.video_id for placement in plan.placements}),
        already_published=len(plan.done),
        incomplete=len(plan.incomplete),
        failed=len(plan.failed),
        tombstoned=len(plan.tombstones),
        shards=len(tasks),
        samples=len(rows),
        shard_bytes=sum({row["shard"]: row["shard_bytes"] for row in rows}.values()),
        version=version,
        num_odd={name: sum({row["shard"]: row[name] for row in rows}.values()) for name in OddRows().counts()},
    )


def commit(
    store: FeatureStore,
    samples: pl.DataFrame,
    plan: GenerationPlan,
    rows: list[dict[str, Any]],
    fingerprints: Mapping[str, str],
    version: int,
) -> int:
    """Append samples, tombstones and, if the configuration changed, the selected encoders; return the version.

    Args:
        samples: the table at `version`; with nothing to append it stays the newest.
    """
    marks = [mark(plan.commit, "tombstone", video_id=video_id) for video_id in plan.tombstones]
    samples = pl.concat([samples, pl.DataFrame(rows, schema=SAMPLES).select(samples.columns)])
    if selected_encoders(samples) != dict(fingerprints) and _have_samples(samples, fingerprints):
        marks += [
            mark(plan.commit, "selected", encoder=name, fingerprint=print_)
            for name, print_ in sorted(fingerprints.items())
        ]
    order = sorted(rows, key=lambda row: (row["shard"], row["offset"]))
    return store.commit_samples(pl.DataFrame([*order, *marks], schema=SAMPLES), version)


def clean_up(store: FeatureStore, fingerprints: Mapping[str, str]) -> None:
    """Drop staged rows that are published or of no use any more, then their tars and the shards that nothing refers to.

    Tars that are not in the catalog yet stay: a write task may be at work on them.
    """
    if not store.staged().is_empty():
        _drop_staged(store, fingerprints)
    sweep_orphans(store, [FEATURES_FOLDER])


def _drop_staged(store: FeatureStore, fingerprints: Mapping[str, str]) -> None:
    frames = replace(store.frames(), staged=store.staged())
    unit = ["video_id", "content_hash", "encoder", "fingerprint"]
    published = frames.samples.filter(is_source(frames.samples))
    current = frames.videos.select("video_id", "content_hash")
    superseded = pl.any_horizontal(
        pl.lit(False),
        *((pl.col("encoder") == name) & (pl.col("fingerprint") != print_) for name, print_ in fingerprints.items()),
    )
    kept = (
        frames.staged.join(published, on=unit, how="anti")
        .join(current, on=["video_id", "content_hash"], how="semi")
        .filter(~superseded)
    )
    if kept.height < frames.staged.height:
        store.replace_staged(kept)
    remove_tars(store, set(frames.staged["tar"]) - set(kept["tar"]))


def _check_conservation(frames: StoreFrames, plan: GenerationPlan) -> None:
    """Every video of the snapshot is in exactly one of done, published now, failed and incomplete."""
    placed = [placement.video_id for placement in plan.placements]
    parts = [*plan.done, *placed, *plan.failed, *plan.incomplete]
    if sorted(parts) != sorted(frames.videos["video_id"]):
        raise RuntimeError(
            f"row conservation: {len(plan.done)} done + {len(placed)} to publish + {len(plan.failed)} failed "
            f"+ {len(plan.incomplete)} incomplete are not the {frames.videos.height} videos of the snapshot"
        )


def check_written(plan: GenerationPlan, tasks: Sequence[ShardTask], rows: list[dict[str, Any]]) -> None:
    """Check that every placed (video, encoder) came back once, under its own key, from the shard it was given to.

    Raises:
        RuntimeError: a row was lost, doubled or mixed up.
    """
    planned = sorted(
        (placement.video_id, encoder, placement.gen) for placement in plan.placements for encoder in placement.encoders
    )
    written = sorted((row["video_id"], row["encoder"], row["gen"]) for row in rows)
    given = sorted((task.shard, item.key) for task in tasks for item in task.items)
    if written != planned or sorted((row["shard"], row["key"]) for row in rows) != given:
        raise RuntimeError(
            f"row conservation: {len(planned)} samples were planned, {len(written)} were written or are not those"
        )
    wrong = [row["video_id"] for row in rows if row["key"] != video_key(row["video_id"])]
    if wrong:
        raise RuntimeError(f"the samples of {wrong[:5]} have keys of other videos")


def _write_or_find_damage(task: ShardTask) -> list[dict[str, Any]]:
    """Return the rows of `write_shard`, or, where staged bytes are damaged, their staged rows: these have a `tar`."""
    try:
        return write_shard(task)
    except DamagedSegmentError:
        return damaged_segments(task)


def write_manifests(store: FeatureStore, rows: list[dict[str, Any]]) -> None:
    """Write the `manifest.json` of every shard set among the rows."""
    sets: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        sets.setdefault((row["encoder"], row["fingerprint"], row["gen"]), []).append(row)
    for (encoder, fingerprint, gen), members in sets.items():
        uri = storage.join(store.uri, set_folder(encoder, fingerprint, gen), "manifest.json")
        storage.atomic_write(uri, set_manifest(members))


def _have_samples(samples: pl.DataFrame, fingerprints: Mapping[str, str]) -> bool:
    live = live_samples(samples).select("encoder", "fingerprint").unique()
    return set(fingerprints.items()) <= set(live.iter_rows())


def mark(number: int, state: str, **values: str | int) -> dict[str, Any]:
    """Return a row of `samples` that is no sample.

    Args:
        number: of the commit.
    """
    empty: dict[str, Any] = {name: "" if kind == pl.String() else 0 for name, kind in SAMPLES.items()}
    return empty | {"commit": number, "state": state} | values
