"""The plan: snapshot minus catalog. Resume, incremental work and "nothing to do" are this one function.

A (video, encoder) pair has one status; the first that fits counts:

| status | meaning | extracted now |
|---|---|---|
| done | published with this content, fingerprint, metadata and split | no |
| relabelled | features of this content are published; only the sample must be rewritten (metadata, split or id changed)
| no |
| staged | all segments are staged, publishing is left | no |
| failed_before | failed with this content; only transient failures are tried again | if transient |
| partial | some segments are staged | the rest |
| changed | published with other content | yes |
| stale | published with another fingerprint | yes |
| new | none of these | yes |

A permanent failure of one encoder holds the whole video back: it could not be published anyway.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from hvlm.data.splits import SplitConfig, assign_split, order_hash
from pipelines.store.catalog import StoreFrames
from pipelines.store.liveness import home_generations, is_source

STATUSES = ("new", "changed", "stale", "partial", "failed_before", "relabelled", "staged", "done")
_RUN = ("new", "changed", "stale", "partial")
_PAIR = ["video_id", "content_hash", "encoder", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would run and why.

    Args:
        todo: one row per video to extract, in an order that depends on the ids alone: video_id, key, uri, content_hash,
            duration_s, needs (list of {encoder, staged_segments: the indices that need no work}, sorted by encoder).
        status: video_id, encoder, status, runs (whether it is in `todo`).
        counts: encoder -> status -> number of videos.
        num_videos: videos of the snapshot.
    """

    todo: pl.DataFrame
    status: pl.DataFrame
    counts: dict[str, dict[str, int]]
    num_videos: int


def make_plan(
    frames: StoreFrames,
    fingerprints: Mapping[str, str],
    layouts: Mapping[str, str] | None = None,
    splits: SplitConfig | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Return the plan of extracting every video of the snapshot with every encoder.

    Args:
        frames: `store.frames()`.
        fingerprints: encoder name -> fingerprint.
        layouts: encoder name -> layout of this run; segments that were staged in another layout do not count. None: all
            count.
        splits: when given, a published sample in another split than this assigns counts as relabelled.
        retry_failed: run permanent failures again too.
    """
    staged = frames.staged
    if layouts is not None:
        wanted = _pairs_frame("layout", layouts)
        whole = complete_staged(staged)
        staged = pl.concat(
            [whole, staged.join(whole, on=_PAIR, how="anti").join(wanted, on=["encoder", "layout"], how="semi")]
        )
    done, rest = video_encoder_pairs(replace(frames, staged=staged), fingerprints, splits)
    failed = pl.col("status") == "failed_before"
    rest = rest.select(
        *_PAIR, "status", runs=pl.col("status").is_in(_RUN) | (failed & (~pl.col("blocked") | retry_failed))
    )
    segments = staged.group_by(_PAIR).agg(pl.col("segment_index").unique().sort().alias("staged_segments"))
    needs = rest.filter("runs").join(segments, on=_PAIR, how="left").sort("encoder")
    needs = needs.with_columns(pl.col("staged_segments").fill_null(pl.lit([], dtype=pl.List(pl.Int64))))
    needed = needs.group_by("video_id", maintain_order=True).agg(pl.struct("encoder", "staged_segments").alias("needs"))
    videos = frames.videos.select("video_id", "key", "uri", "content_hash", "duration_s")
    todo = videos.join(needed, on="video_id")
    todo = (
        todo.with_columns(order=pl.Series([order_hash(video_id) for video_id in todo["video_id"]], dtype=pl.String))
        .sort("order")
        .drop("order")
    )
    status = pl.concat(
        [
            done.with_columns(status=pl.lit("done"), runs=pl.lit(False)),
            rest.select("video_id", "encoder", "status", "runs"),
        ]
    )
    counts = {encoder: dict.fromkeys(STATUSES, 0) for encoder in fingerprints}
    for encoder, name, number in status.group_by("encoder", "status").len().iter_rows():
        counts[encoder][name] = number
    return Plan(todo, status, counts, frames.videos.height)


def video_encoder_pairs(
    frames: StoreFrames, fingerprints: Mapping[str, str], splits: SplitConfig | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the (video of the snapshot, encoder) pairs that are done and the others.

    Done ones have their ids only, the others also content_hash, fingerprint, metadata_hash, wanted_split, `status` and
    `blocked`.
    """
    videos = frames.videos.select("video_id", "content_hash", "metadata_hash", wanted_split=pl.lit(None, pl.String))
    if splits is not None:
        videos = videos.drop("wanted_split").join(assigned_splits(frames.videos, splits), on="video_id")
    homes = home_generations(frames.samples)
    done, rest = [], []
    for encoder, fingerprint in fingerprints.items():  # one after the other: half the memory of both at once
        column = {"encoder": pl.lit(encoder)}
        mine = videos.join(_live_column(frames.samples, homes, encoder, fingerprint), on="video_id")
        mine = mine.filter(
            *(pl.col(name) == pl.col(f"live_{name}") for name in ("content_hash", "metadata_hash")),
            pl.col("wanted_split").is_null() | (pl.col("wanted_split") == pl.col("live_split")),
        )
        done.append(mine.select("video_id", **column))
        # Usually nearly everything is done: the other statuses are worked out for the rest alone.
        left = videos.join(mine, on="video_id", how="anti")
        rest.append(_marked(left.with_columns(**column, fingerprint=pl.lit(fingerprint)), frames))
    return pl.concat(done), _with_status(pl.concat(rest))


def _live_column(samples: pl.DataFrame, homes: pl.DataFrame, encoder: str, fingerprint: str) -> pl.DataFrame:
    """Return the live samples of one encoder: video_id, live_content_hash, live_metadata_hash, live_split."""
    found = ["content_hash", "metadata_hash", "split"]
    rows = samples.lazy().filter(
        pl.col("state") == "live", pl.col("encoder") == encoder, pl.col("fingerprint") == fingerprint
    )
    rows = rows.join(homes.lazy(), on=["video_id", "gen"], how="semi")
    return rows.select("video_id", pl.col(found).name.prefix("live_")).collect()


def _marked(pairs: pl.DataFrame, frames: StoreFrames) -> pl.DataFrame:
    """Add what the catalog knows of the pairs of one encoder that are not done."""
    pairs = _mark_published(pairs, frames.samples)
    pairs = _mark_staged(pairs, frames.staged)
    return _mark_failed(pairs, frames.failures)


def _with_status(pairs: pl.DataFrame) -> pl.DataFrame:
    """Add `status` and `blocked` (a permanent failure holds the video back) to marked pairs."""
    # A failure that a later attempt overcame is history.
    pairs = pairs.with_columns(permanent=pl.when("has_features").then(None).otherwise("permanent"))
    blocked = pl.col("permanent").max().over("video_id").fill_null(False)
    status = (
        pl.when("has_features").then(pl.lit("relabelled"))
        .when("is_staged").then(pl.lit("staged"))
        .when(pl.col("permanent").is_not_null() | blocked).then(pl.lit("failed_before"))
        .when("has_segments").then(pl.lit("partial"))
        .when("has_other_content").then(pl.lit("changed"))
        .when("has_other_fingerprint").then(pl.lit("stale"))
        .otherwise(pl.lit("new"))
    )  # fmt: skip
    return pairs.with_columns(status=status, blocked=blocked)


def assigned_splits(videos: pl.DataFrame, splits: SplitConfig) -> pl.DataFrame:
    """Return video_id, wanted_split: the list's own split if it names one, else the assigned one."""
    rows = videos.select("video_id", "subset", "split").iter_rows()
    assigned = [split or assign_split(video_id, subset, splits) for video_id, subset, split in rows]
    return videos.select("video_id", wanted_split=pl.Series(assigned, dtype=pl.String))


def complete_staged(staged: pl.DataFrame) -> pl.DataFrame:
    """Return the staged rows that make up whole videos: one row per segment.

    A (video, content, encoder, fingerprint) may be staged twice, in other segment lengths or by a run that was killed
    before its rows were seen: the first complete layout and the first row of a segment are taken, by name and not by
    arrival.
    """
    encoders = sorted(staged["encoder"].unique())
    # One after the other: sorting and joining by five long columns takes a gigabyte for a million segments.
    return pl.concat([staged.clear(), *(_complete(staged.filter(pl.col("encoder") == name)) for name in encoders)])


def _complete(staged: pl.DataFrame) -> pl.DataFrame:
    """Do it for the rows of one encoder."""
    pair = [name for name in _PAIR if name != "encoder"]
    unit = [*pair, "layout"]
    segment = [*unit, "segment_index"]
    if staged.select(segment).unique().height < staged.height:
        staged = staged.sort(*segment, "tar", "offset").unique(segment, keep="first", maintain_order=True)
    whole = (
        staged.group_by(unit)
        .agg(pl.len().alias("found"), pl.col("num_segments").max().alias("wanted"))
        .filter(pl.col("found") == pl.col("wanted"))
    )
    chosen = whole.group_by(pair).agg(pl.col("layout").min())
    return staged.join(chosen, on=unit, how="semi")


def _pairs_frame(column: str, values: Mapping[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"encoder": list(values), column: list(values.values())}, schema={"encoder": pl.String, column: pl.String}
    )


def _mark_published(pairs: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    published = samples.lazy().filter(is_source(samples)).select(_PAIR)
    mine = published.join(pairs.lazy().select("video_id").unique(), on="video_id", how="semi").collect()
    current = pairs.select("video_id", "content_hash").unique()
    same = published.join(current.lazy(), on="content_hash", how="semi").collect()
    marks = {
        "has_features": (same, ["content_hash", "encoder", "fingerprint"]),
        "has_other_content": (mine.join(current, on=["video_id", "content_hash"], how="anti"), ["video_id"]),
        "has_other_fingerprint": (mine, ["video_id", "content_hash", "encoder"]),
    }
    for name, (frame, keys) in marks.items():
        pairs = pairs.join(frame.select(keys).unique().with_columns(pl.lit(True).alias(name)), on=keys, how="left")
    return pairs.with_columns(pl.col(list(marks)).fill_null(False))


def _mark_staged(pairs: pl.DataFrame, staged: pl.DataFrame) -> pl.DataFrame:
    column = pairs.select("encoder", "fingerprint").unique()
    staged = staged.join(column, on=["encoder", "fingerprint"], how="semi")
    keys = ["video_id", "content_hash"]
    for name, frame in (("has_segments", staged), ("is_staged", complete_staged(staged))):
        pairs = pairs.join(frame.select(keys).unique().with_columns(pl.lit(True).alias(name)), on=keys, how="left")
    return pairs.with_columns(pl.col("has_segments", "is_staged").fill_null(False))


def _mark_failed(pairs: pl.DataFrame, failures: pl.DataFrame) -> pl.DataFrame:
    """Add `permanent`: null where nothing failed, else whether a failure is. An empty name fits any."""
    failed = failures.filter(pl.col("content_hash") != "").select(
        "video_id", "content_hash", "encoder", "fingerprint", "permanent"
    )
    hits = pairs.select(_PAIR).join(failed, on=["video_id", "content_hash"], suffix="_failed")
    fits = ((pl.col("encoder_failed") == "") | (pl.col("encoder_failed") == pl.col("encoder"))) & (
        (pl.col("fingerprint_failed") == "") | (pl.col("fingerprint_failed") == pl.col("fingerprint"))
    )
    marks = hits.filter(fits).group_by(_PAIR).agg(pl.col("permanent").max())
    return pairs.join(marks, on=_PAIR, how="left")
