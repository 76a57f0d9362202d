"""Compact: live samples of worn generations move into one new generation; what nobody reads any more is deleted.

A generation is worn when it holds dead samples (deleted or replaced videos; with drop_superseded also those of replaced
encoders) or shards far below the target size. Its live samples are written again as a publish would write them: the
order of the hashed ids, the cut by target bytes, the bytes of a sample from its published features and metadata.
Nothing is decoded. ONE append to `samples` makes the new generation the home of its videos, which retires the old ones:
their rows are dead from then on.

The files of a retired generation stay for the readers of older versions. Once it has had no live sample for
`keep_versions_days`, it is marked as dropped in `samples`, and what nothing refers to is swept. A kill at any moment
leaves files that the next publish or compaction writes again or sweeps; running it again does nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from hvlm.config import Config, require
from infra.cluster import ClusterConfig
from pipelines.store.catalog import FeatureStore, StoreFrames
from pipelines.store.encoders import EncoderColumn, read_encoder
from pipelines.store.generation import GenerationPlan, Placement, cut, shard_tasks, video_bytes
from pipelines.store.liveness import SAMPLE, is_stored, live_samples, superseded_samples
from pipelines.store.packing import remembered_packing
from pipelines.store.publish import (
    PublishConfig,
    RunTasks,
    check_written,
    mark,
    run_inline,
    write_manifests,
)
from pipelines.store.schema import FAILURES, SAMPLES, STAGED
from pipelines.store.shards import write_shard
from pipelines.store.staging import FEATURES_FOLDER, sweep_copies, sweep_orphans
from pipelines.store.upkeep.maintenance import tidy_tables

# A generation whose shards are on average below this share of the target is worth merging with others.
_SMALL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig(Config):
    """What to compact and how long old versions stay readable.

    Args:
        target_shard_bytes: a shard is cut before it passes this, summed over all that the store has of its videos;
            None: that of the last publish (256 MiB in a store which was made before stores noted it).
        max_dead_fraction: a generation is rewritten when a larger share of its samples is dead; 0 = when any is.
        keep_versions_days: shards that no version of the last so many days needs are deleted; 0 = at once.
        drop_superseded: leave out the samples of replaced encoder fingerprints (another model, another stride) where
            the video has those of the newest one; else they come along. A reader of the newest version can no longer
            ask for them then, nor can a model that was trained on them be evaluated on it.
    """

    store_uri: str
    target_shard_bytes: int | None = None
    max_dead_fraction: float = 0.0
    keep_versions_days: float = 30.0
    drop_superseded: bool = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.target_shard_bytes is not None:
            PublishConfig(target_shard_bytes=self.target_shard_bytes)  # the same limits
        require(
            0 <= self.max_dead_fraction < 1,
            what="max_dead_fraction",
            got=self.max_dead_fraction,
            expected="at least 0 and below 1",
            do="set e.g. 0.1",
        )
        require(
            self.keep_versions_days >= 0,
            what="keep_versions_days",
            got=self.keep_versions_days,
            expected="0 or more",
            do="set e.g. 30",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactSummary:
    """What a compaction did.

    Args:
        rewritten: generations whose live samples moved; generation: to which one (0: nothing moved).
        num_samples, num_videos: moved. num_dead: samples that were left behind: dead ones, and num_superseded that
            were live until now.
        shards_before, shards: shard files of the moved samples.
        dropped: generations that were deleted now.
        kept: generations without a live sample that older versions may still need, and their kept_bytes.
        num_swept: files deleted.
    """

    version: int
    rewritten: tuple[int, ...]
    generation: int
    num_videos: int
    num_samples: int
    num_dead: int
    num_superseded: int
    shards_before: int
    shards: int
    dropped: tuple[int, ...]
    kept: tuple[int, ...]
    kept_bytes: int
    num_swept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """The samples that move.

    Args:
        frames: their rows as `samples`; as `videos` their videos as they are published; nothing else.
        placed: (video_id, split, shard name) in the new generation.
    """

    frames: StoreFrames
    placed: Sequence[tuple[str, str, str]]


def compact(config: CompactConfig, run_tasks: RunTasks = run_inline) -> CompactSummary:
    """Rewrite worn generations, delete those that nobody needs any more; with nothing to do, nothing is written.

    Args:
        run_tasks: maps `write_shard` over the tasks and yields the results in any order (e.g. as Ray tasks).

    Raises:
        StoreIsHeld, LeaseLost: another job writes into the store, or has taken it over.
        DamagedShardError: a published shard is lost or damaged. UserError: no such store; the disk is full.
    """
    store = FeatureStore.open(config.store_uri)
    with store.writing("jobs.compact"):
        tidy_tables(store)
        version, before = store.samples_version(), store.samples()
        target_bytes = config.target_shard_bytes or remembered_packing(store) or PublishConfig().target_shard_bytes
        move = _plan_move(store, before, config, target_bytes)
        rows = _write(store, before, move, run_tasks) if move else []
        store.commit_samples(pl.DataFrame(rows, schema=SAMPLES), version)
        dropped = _drop(store, config.keep_versions_days)
        swept = sweep_orphans(store, [FEATURES_FOLDER]) + sweep_copies(store)
        after = store.samples()
        rewritten = sorted(move.frames.samples["gen"].unique()) if move else []
        in_rewritten = pl.col("gen").is_in(rewritten)
        kept = after.filter(is_stored(after)).join(live_samples(after), on="gen", how="anti")
        return CompactSummary(
            version=store.samples_version(),
            rewritten=tuple(rewritten),
            generation=rows[0]["gen"] if rows else 0,
            num_videos=move.frames.videos.height if move else 0,
            num_samples=len(rows),
            num_dead=before.filter(is_stored(before) & in_rewritten).height - len(rows),
            num_superseded=live_samples(before).filter(in_rewritten).height - len(rows),
            shards_before=move.frames.samples["shard"].n_unique() if move else 0,
            shards=len({row["shard"] for row in rows}),
            dropped=tuple(dropped),
            kept=tuple(sorted(kept["gen"].unique())),
            kept_bytes=int(kept.unique("shard")["shard_bytes"].sum()),
            num_swept=len(swept),
        )


def _plan_move(store: FeatureStore, samples: pl.DataFrame, config: CompactConfig, target_bytes: int) -> _Move | None:
    """Return what moves: the live samples of worn generations, if that leaves dead samples behind or saves shards."""
    live = live_samples(samples)
    if config.drop_superseded:
        live = live.join(superseded_samples(samples), on=SAMPLE, how="anti")
    videos = _published_videos(store, live)
    frames = StoreFrames(videos, pl.DataFrame(schema=STAGED), live, pl.DataFrame(schema=FAILURES))
    sizes = video_bytes(videos, set(live["fingerprint"]), frames)
    total = samples.filter(is_stored(samples)).group_by("gen").agg(total=pl.len())
    alive = live.group_by("gen").agg(alive=pl.len(), shards=_shard_name().n_unique()).join(total, on="gen")
    size = pl.DataFrame({"video_id": sizes.keys(), "bytes": sizes.values()}, schema_overrides={"video_id": pl.String})
    alive = alive.join(videos.join(size, on="video_id").group_by("gen").agg(pl.col("bytes").sum()), on="gen")
    dead = alive.filter(1 - pl.col("alive") / pl.col("total") > config.max_dead_fraction)
    small = alive.filter(pl.col("bytes") / pl.col("shards") < _SMALL * target_bytes)
    worn = pl.concat([dead, small]).unique("gen")
    videos = videos.join(worn, on="gen", how="semi")
    split_of = dict(videos.select("video_id", "split").iter_rows())
    placed = cut(sizes, split_of, target_bytes)
    if dead.is_empty() and len({name for _, _, name in placed}) >= int(worn["shards"].sum()):
        return None
    moving = replace(frames, videos=videos, samples=live.join(worn, on="gen", how="semi"))
    return _Move(frames=moving, placed=placed)


def _published_videos(store: FeatureStore, live: pl.DataFrame) -> pl.DataFrame:
    """Return the videos as their live samples show them, which a snapshot that is not published yet may not."""
    columns = ["video_id", "key", "gen", "split", "content_hash", "metadata_hash"]
    videos = live.select(columns).unique().sort("video_id")
    found = videos.join(store.metadata(), on=["video_id", "metadata_hash"])
    if found.height != live["video_id"].n_unique():
        raise RuntimeError(
            f"row conservation: {live['video_id'].n_unique()} live videos, {videos.height} with one content, metadata "
            f"and split, {found.height} of them with metadata in the table `videos`; run jobs.verify"
        )
    return found


def _write(store: FeatureStore, samples: pl.DataFrame, move: _Move, run_tasks: RunTasks) -> list[dict[str, Any]]:
    """Write the new generation's shards and manifests and return its rows by shard and offset."""
    number, gen = (int(samples[name].max()) + 1 for name in ("commit", "gen"))  # type: ignore[arg-type]
    rows: list[dict[str, Any]] = []
    for columns in _layers(store, move.frames.samples):
        prints = [column.fingerprint for column in columns.values()]
        mine = move.frames.samples.join(
            pl.DataFrame({"encoder": list(columns), "fingerprint": prints}), on=["encoder", "fingerprint"], how="semi"
        )
        encoders = dict(mine.group_by("video_id").agg(pl.col("encoder").sort()).iter_rows())
        placements = tuple(
            Placement(video_id=video_id, gen=gen, split=split, shard_name=name, encoders=tuple(encoders[video_id]))
            for video_id, split, name in move.placed
            if video_id in encoders
        )
        none: frozenset[str] = frozenset()
        plan = GenerationPlan(
            done=none, placements=placements, failed=none, incomplete=none, tombstones=(), commit=number
        )
        tasks = shard_tasks(plan, move.frames, columns, store.uri, store.lease_token())
        written = [row for result in run_tasks(write_shard, tasks) for row in result]
        check_written(plan, tasks, written)
        rows += written
    write_manifests(store, rows)
    return sorted(rows, key=lambda row: (row["shard"], row["offset"]))


def _layers(store: FeatureStore, live: pl.DataFrame) -> list[dict[str, EncoderColumn]]:
    """Return the store's columns, an encoder at most once in a layer: a publish knows one fingerprint of each."""
    columns = live.select("encoder", "fingerprint").unique().sort("encoder", "fingerprint")
    ranked = columns.with_columns(layer=pl.int_range(pl.len()).over("encoder")).sort("layer", "encoder")
    layers: dict[int, dict[str, EncoderColumn]] = {}
    for name, fingerprint, layer in ranked.iter_rows():
        layers.setdefault(layer, {})[name] = read_encoder(store.uri, name, fingerprint)
    return list(layers.values())


def _drop(store: FeatureStore, keep_days: float) -> list[int]:
    """Mark the generations that had no live sample already `keep_days` ago as dropped, and return them."""
    version, samples = store.samples_version(), store.samples()
    then = store.samples_at(datetime.now(UTC) - timedelta(days=keep_days)) if keep_days else samples
    retired = set(then.filter(is_stored(then))["gen"]) - set(live_samples(then)["gen"])
    dropped = sorted(retired & set(samples.filter(is_stored(samples))["gen"]))
    number = int(samples.select(pl.col("commit").max().fill_null(0)).item()) + 1
    marks = [mark(number, "dropped", gen=gen) for gen in dropped]
    store.commit_samples(pl.DataFrame(marks, schema=SAMPLES), version)
    return dropped


def _shard_name() -> pl.Expr:
    return pl.col("shard").str.split("/").list.last()
