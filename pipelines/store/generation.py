"""What a publish writes, as a pure function of the catalog and the configuration.

- A *new generation* takes every complete video that is not published as it should be, in the order of the hash of its
  id, cut per split by target bytes (summed over the configured encoders, so that every encoder packs the same videos
  into the same shards).
- A *parallel set* gives an existing generation a new encoder, or a new fingerprint of one, in the same shards and
  order. Only videos whose home is that generation take part; those that changed since are left out.
Nothing here depends on the order of arrival, the number of workers or kills.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from hvlm.data.splits import SplitConfig, order_hash
from pipelines.store.catalog import StoreFrames
from pipelines.store.liveness import is_source, live_samples
from pipelines.store.plan import assigned_splits, complete_staged, video_encoder_pairs

# What a sample takes beside its float16 features, for the cut: about 20 bytes of json per time stamp, then headers.
_BYTES_PER_ROW = 20
_BYTES_PER_SAMPLE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardItem:
    """One sample to write.

    Args:
        segments: staged rows in segment order; empty when the features come from a published sample.
        published: (shard, offset, size, sha256) of a published sample with the same content and fingerprint, or None.
    """

    video_id: str
    key: str
    content_hash: str
    metadata_hash: str
    metadata_json: str
    segments: tuple[dict[str, Any], ...]
    published: tuple[str, int, int, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to write: a work item that can travel to a worker.

    Args:
        lease_token: of the job that gives the task (see `FeatureStore.lease_token`).
    """

    store_uri: str
    commit: int
    gen: int
    encoder: str
    fingerprint: str
    extractor: str
    dim: int
    split: str
    shard: str
    items: tuple[ShardItem, ...]
    lease_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a video goes; `encoders` are written: all in a new generation, the missing ones in a parallel set."""

    video_id: str
    gen: int
    split: str
    shard_name: str
    encoders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """The outcome of `plan_generation`: every video of the snapshot is in exactly one of the first four.

    Args:
        done: published as they should be already.
        placements: to be written now.
        failed: held back by a permanent failure.
        incomplete: not extracted yet, or failed in a way that the next run tries again.
        tombstones: published ids that are gone, or whose new content failed for good.
        commit: number of this publish.
    """

    done: frozenset[str]
    placements: tuple[Placement, ...]
    failed: frozenset[str]
    incomplete: frozenset[str]
    tombstones: tuple[str, ...]
    commit: int


def set_folder(encoder: str, fingerprint: str, gen: int) -> str:
    """Return the folder of an encoder's shards of a generation, relative to the store."""
    return f"features/{encoder}-{fingerprint[:8]}/gen-{gen:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The videos of the snapshot, each in exactly one of `done`, `to_place`, `failed` and `incomplete`.

    Args:
        pairs: the (video, encoder) pairs that are not done (see `plan.video_encoder_pairs`).
    """

    done: frozenset[str]
    to_place: frozenset[str]
    failed: frozenset[str]
    incomplete: frozenset[str]
    pairs: pl.DataFrame


def readiness_of(frames: StoreFrames, fingerprints: Mapping[str, str], splits: SplitConfig) -> Readiness:
    """Return which videos a publish has to write, from what planning reads.

    Args:
        frames: `store.frames()`.
        fingerprints: encoder name -> fingerprint, all of the configuration.
    """
    _, pairs = video_encoder_pairs(frames, fingerprints, splits)
    videos = pairs.group_by("video_id").agg(
        complete=pl.col("status").is_in(["relabelled", "staged"]).all(), blocked=pl.col("blocked").any()
    )
    done = frames.videos.join(videos, on="video_id", how="anti")
    held = videos.filter(~pl.col("complete"))
    return Readiness(
        done=frozenset(done["video_id"]),
        to_place=frozenset(videos.filter("complete")["video_id"]),
        failed=frozenset(held.filter("blocked")["video_id"]),
        incomplete=frozenset(held.filter(~pl.col("blocked"))["video_id"]),
        pairs=pairs,
    )


def plan_generation(
    frames: StoreFrames, readiness: Readiness, fingerprints: Mapping[str, str], splits: SplitConfig, target_bytes: int
) -> GenerationPlan:
    """Return what a publish has to write.

    Args:
        frames: `store.frames(full=True)`; when nothing is to be placed, `store.frames()` is enough.
        fingerprints: encoder name -> fingerprint, all of the configuration.
        target_bytes: a shard set is cut before it passes this, summed over the encoders.
    """
    to_place, samples = readiness.to_place, frames.samples
    pairs = readiness.pairs.filter(pl.col("video_id").is_in(list(to_place)))
    parallel = _parallel_placements(pairs, samples) if to_place else []
    placed = {placement.video_id for placement in parallel}
    gen = int(samples.select(pl.col("gen").max().fill_null(0)).item()) + 1
    fresh = frames.videos.filter(pl.col("video_id").is_in(list(to_place - placed)))
    sizes = video_bytes(fresh, fingerprints.values(), frames) if to_place else {}
    new = cut(sizes, dict(assigned_splits(fresh, splits).iter_rows()), target_bytes)
    return GenerationPlan(
        done=readiness.done,
        placements=(
            *parallel,
            *(
                Placement(
                    video_id=video_id, gen=gen, split=split, shard_name=name, encoders=tuple(sorted(fingerprints))
                )
                for video_id, split, name in new
            ),
        ),
        failed=readiness.failed,
        incomplete=readiness.incomplete,
        tombstones=_tombstones(frames, readiness.failed),
        commit=int(samples.select(pl.col("commit").max().fill_null(0)).item()) + 1,
    )


def shard_tasks(
    plan: GenerationPlan, frames: StoreFrames, encoders: Mapping[str, Any], store_uri: str, lease_token: str = ""
) -> list[ShardTask]:
    """Return one task per shard, sorted by name.

    Args:
        encoders: name -> object with `fingerprint`, `dim` and `extractor` (`publish.EncoderColumn`).
    """
    sources = _Sources(frames, {name: column.fingerprint for name, column in encoders.items()})
    by_shard: dict[tuple[int, str, str], list[Placement]] = {}
    for placement in plan.placements:
        for encoder in placement.encoders:
            by_shard.setdefault((placement.gen, encoder, placement.shard_name), []).append(placement)
    tasks = []
    for (gen, encoder, name), placements in sorted(by_shard.items()):
        column = encoders[encoder]
        ordered = sorted(placements, key=lambda placement: order_hash(placement.video_id))
        tasks.append(
            ShardTask(
                store_uri=store_uri,
                commit=plan.commit,
                gen=gen,
                encoder=encoder,
                fingerprint=column.fingerprint,
                extractor=column.extractor,
                dim=column.dim,
                split=placements[0].split,
                shard=f"{set_folder(encoder, column.fingerprint, gen)}/{name}.tar",
                items=tuple(sources.item(placement.video_id, encoder) for placement in ordered),
                lease_token=lease_token,
            )
        )
    return tasks


class _Sources:
    """Finds the features of a (video, encoder): a published sample of the same content, else staging."""

    def __init__(self, frames: StoreFrames, fingerprints: Mapping[str, str]) -> None:
        columns = ["video_id", "key", "content_hash", "metadata_hash", "metadata_json"]
        self._videos = {row["video_id"]: row for row in frames.videos.select(columns).iter_rows(named=True)}
        self._fingerprints = fingerprints
        wanted = pl.col("fingerprint").is_in(list(fingerprints.values()))
        published = frames.samples.filter(is_source(frames.samples) & wanted).sort(
            "commit", "video_id", descending=[True, False]
        )
        rows = published.unique(["content_hash", "fingerprint"], keep="first", maintain_order=True)
        self._published = {
            (content, print_): (shard, offset, size, sha256)
            for content, print_, shard, offset, size, sha256 in rows.select(
                "content_hash", "fingerprint", "shard", "offset", "size", "sample_sha256"
            ).iter_rows()
        }
        self._staged: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
        for row in complete_staged(frames.staged.filter(wanted)).sort("segment_index").iter_rows(named=True):
            self._staged.setdefault(
                (row["video_id"], row["content_hash"], row["encoder"], row["fingerprint"]), []
            ).append(row)

    def item(self, video_id: str, encoder: str) -> ShardItem:
        video, fingerprint = self._videos[video_id], self._fingerprints[encoder]
        published = self._published.get((video["content_hash"], fingerprint))
        segments = () if published else tuple(self._staged[video_id, video["content_hash"], encoder, fingerprint])
        return ShardItem(
            video_id=video_id,
            key=video["key"],
            content_hash=video["content_hash"],
            metadata_hash=video["metadata_hash"],
            metadata_json=video["metadata_json"],
            segments=segments,
            published=published,
        )


def _parallel_placements(pairs: pl.DataFrame, samples: pl.DataFrame) -> list[Placement]:
    """Place the videos whose home generation is up to date and lacks a set of the missing encoders."""
    mine = samples.join(pairs.select("video_id").unique(), on="video_id", how="semi")
    home = live_samples(mine).sort("shard").unique("video_id", keep="first", maintain_order=True)
    home = home.select("video_id", "content_hash", "metadata_hash", "split", "gen", "shard")
    current = pairs.join(home, on=["video_id", "content_hash", "metadata_hash"], how="inner").filter(
        pl.col("split") == pl.col("wanted_split")
    )
    written = samples.filter(pl.col("state") == "live").select("gen", "encoder", "fingerprint").unique()
    late = current.join(written, on=["gen", "encoder", "fingerprint"], how="semi").select("video_id").unique()
    missing = current.join(late, on="video_id", how="anti")
    grouped = missing.group_by("video_id", "gen", "split", "shard").agg(pl.col("encoder").sort()).sort("video_id")
    return [
        Placement(
            video_id=video_id,
            gen=gen,
            split=split,
            shard_name=shard.rpartition("/")[2].removesuffix(".tar"),
            encoders=tuple(encoders),
        )
        for video_id, gen, split, shard, encoders in grouped.iter_rows()
    ]


def sample_bytes(num_rows: pl.Expr, dim: pl.Expr) -> pl.Expr:
    """Return about how many bytes a sample of (num_rows, dim) float16 takes in a shard, without its texts."""
    return num_rows * (2 * dim + _BYTES_PER_ROW) + _BYTES_PER_SAMPLE


def video_bytes(videos: pl.DataFrame, fingerprints: Collection[str], frames: StoreFrames) -> dict[str, int]:
    """Return video_id -> bytes of its samples over the fingerprints, from row counts alone: staging has no part in it.

    Args:
        videos: video_id, content_hash, metadata_json.
    """
    columns = ["content_hash", "fingerprint", "num_rows", "dim"]
    staged = (
        complete_staged(frames.staged)
        .group_by("content_hash", "video_id", "encoder", "fingerprint")
        .agg(pl.col("num_rows").sum(), pl.col("dim").first())
    )
    published = frames.samples.filter(is_source(frames.samples)).select(columns)
    known = pl.concat([published, staged.select(columns)]).unique(
        ["content_hash", "fingerprint"], keep="first", maintain_order=True
    )
    known = known.filter(pl.col("fingerprint").is_in(list(fingerprints)))
    size = sample_bytes(pl.col("num_rows"), pl.col("dim"))
    features = known.group_by("content_hash").agg(size.sum().alias("bytes"))
    text = pl.col("metadata_json").str.len_bytes() * len(fingerprints)
    total = videos.join(features, on="content_hash").select("video_id", (pl.col("bytes") + text).alias("bytes"))
    return dict(total.iter_rows())


def cut(sizes: Mapping[str, int], split_of: Mapping[str, str], target_bytes: int) -> list[tuple[str, str, str]]:
    """Return (video_id, split, shard name) of a new generation, in order.

    Args:
        sizes: video_id -> bytes of its samples.
        split_of: video_id -> split.
    """
    shards: dict[str, tuple[int, int]] = {}
    placed = []
    for video_id in sorted(split_of, key=order_hash):
        split, size = split_of[video_id], sizes[video_id]
        index, filled = shards.get(split, (0, 0))
        if filled and filled + size > target_bytes:
            index, filled = index + 1, 0
        shards[split] = (index, filled + size)
        placed.append((video_id, split, f"{split}-{index:06d}"))
    return placed


def _tombstones(frames: StoreFrames, blocked: frozenset[str]) -> tuple[str, ...]:
    """Published ids that the snapshot no longer has, or whose new content can never be extracted."""
    current = frames.videos.select("video_id", "content_hash")
    other = live_samples(frames.samples).join(current, on=["video_id", "content_hash"], how="anti")["video_id"]
    known = set(current["video_id"].filter(current["video_id"].is_in(other.implode())))
    return tuple(sorted(video_id for video_id in set(other) if video_id not in known or video_id in blocked))
