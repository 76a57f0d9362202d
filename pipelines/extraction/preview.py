"""What an extraction would do: the same listing, diff and plan as the job; nothing is written, Ray is not started."""

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa

from hvlm.encoders.registry import load_encoder
from hvlm.errors import VideoError
from hvlm.video.spans import covered_s
from infra import storage
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.encode_stage import encode_table
from pipelines.extraction.prediction import Prediction, predict, predicted_from
from pipelines.extraction.salvage import salvage_todo
from pipelines.extraction.sandbox import DecodeLimits, process_sandbox
from pipelines.extraction.stages import encoder_columns, layout_of
from pipelines.extraction.work import work_table
from pipelines.store.catalog import FeatureStore, StoreFrames
from pipelines.store.claim import check_source
from pipelines.store.plan import Plan, make_plan
from pipelines.store.schema import FAILURES, SAMPLES, STAGED, VIDEOS
from pipelines.store.snapshot import PROBE_COLUMNS, SnapshotDiff, diff_listing, identify, to_retry
from pipelines.store.sources import SourceListing, list_source
from pipelines.store.spans import holds_spans, with_spans

READ_AT_MOST = 64  # new files that a plan opens: enough for the hours, bounded whatever the source's size
TIMED_VIDEOS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A plan with its estimates.

    Args:
        plan: as the job would make it; a new file that was not opened counts as new content.
        tombstoned: videos that the source no longer lists.
        num_unread: new or touched files that were not opened; their hours are the mean of the opened ones.
        num_salvaged: damaged or cut videos in quarantine of which a part would be extracted.
        predicted: what the plan comes to; its seconds are those that this machine would take, from timing a few
            videos, None if none could be timed.
    """

    config: ExtractConfig
    plan: Plan
    listing: SourceListing
    tombstoned: int
    num_unread: int
    num_salvaged: int
    predicted: Prediction


def preview(config: ExtractConfig) -> Preview:
    """Return what `extract` would do.

    Raises:
        UserError: as `extract`.
    """
    columns = encoder_columns(config)
    listing = list_source(config.source)
    frames = _frames(config)
    spans = holds_spans(frames.videos, config.samples_spans, config.store_uri)
    diff = diff_listing(listing, frames.videos, spans)
    read, failed = _read_some(diff, config.decode.limits)
    videos = _videos_after(frames.videos, diff, read)
    mended = to_retry(frames.failures, frames.videos, read.values()).with_columns(permanent=pl.lit(False))
    failures = frames.failures.update(mended, on=["video_id", "content_hash", "stage", "encoder", "fingerprint"])
    failures = pl.concat([failures, pl.DataFrame(failed, schema=FAILURES)])
    fingerprints = {name: column.fingerprint for name, column in columns.items()}
    after = StoreFrames(videos, frames.staged, frames.samples, failures)
    plan = make_plan(
        after,
        fingerprints,
        dict.fromkeys(fingerprints, layout_of(config)),
        config.publish.splits,
        config.retry_failed,
    )
    predicted = predict(config, plan, videos.select(predicted_from(config)))
    todo = plan.todo.join(videos.select("video_id", "metadata_json"), on="video_id", maintain_order="left")
    return Preview(
        config=config,
        plan=plan,
        listing=listing,
        tombstoned=diff.gone.height,
        num_unread=diff.to_hash.height - len(read),
        num_salvaged=_num_salvaged(config, after, fingerprints),
        predicted=replace(predicted, seconds=_rough_seconds(config, todo, predicted.hours)),
    )


def _num_salvaged(config: ExtractConfig, frames: StoreFrames, fingerprints: dict[str, str]) -> int:
    if config.decode.on_truncated != "salvage":
        return 0
    return salvage_todo(frames, fingerprints, layout_of(config), config.publish.splits).height


def _frames(config: ExtractConfig) -> StoreFrames:
    with storage.reachable("store_uri", config.store_uri):
        exists = storage.exists(storage.join(storage.absolute_uri(config.store_uri), "store.json"))
    if exists:
        store = FeatureStore.open(config.store_uri)
        check_source(store, "videos", config.source.uri, config.source.replace)
        return replace(store.frames(), videos=store.videos())
    return StoreFrames(*(pl.DataFrame(schema=schema) for schema in (VIDEOS, STAGED, SAMPLES, FAILURES)))


def _read_some(diff: SnapshotDiff, limits: DecodeLimits) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the identified rows of up to READ_AT_MOST new files by id, and their failure rows."""
    some = diff.to_hash.sample(min(READ_AT_MOST, diff.to_hash.height), seed=0)
    read = {row["video_id"]: identify(row, process_sandbox(limits).probe) for row in some.to_dicts()}
    blank: dict[str, Any] = {name: "" if kind == pl.String() else None for name, kind in FAILURES.items()}
    failures = [
        {
            **blank,
            "video_id": video_id,
            "content_hash": row["content_hash"] or "",
            "stage": "identify",
            "attempts": 1,
            **row["failure"],
        }
        for video_id, row in read.items()
        if row["failure"]
    ]
    return read, failures


def _videos_after(videos: pl.DataFrame, diff: SnapshotDiff, read: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """Return the snapshot as it would be.

    A file that was not opened is taken for the known one of its size and stamp (it was moved); where there is none, it
    gets a content hash that no other content has.
    """
    opened = pl.DataFrame(list(read.values()), schema=VIDEOS)
    unopened = diff.to_hash.filter(~pl.col("video_id").is_in(opened["video_id"].implode()))
    replaced = pl.concat([opened, _moved_or_new(unopened, videos), diff.relabelled], how="diagonal")
    replaced = replaced.select(list(VIDEOS)).with_columns(
        pl.col("content_hash").fill_null("unread:" + pl.col("uri")), state=pl.lit("live"), snapshot=pl.lit(0, pl.Int64)
    )
    kept = videos.join(
        pl.concat([replaced.select("video_id"), diff.gone.select("video_id")]), on="video_id", how="anti"
    )
    return pl.concat([kept.select(list(VIDEOS)), replaced])


def _moved_or_new(unopened: pl.DataFrame, videos: pl.DataFrame) -> pl.DataFrame:
    """Add content hash and probe of the known video of the same size and stamp, if there is one."""
    place = ["size_bytes", "stamp"]
    known = videos.filter(pl.col("content_hash").is_not_null()).unique(place, keep="first", maintain_order=True)
    found = unopened.join(known.select(*place, "content_hash", *PROBE_COLUMNS), on=place, how="left")
    moved = found.filter(pl.col("content_hash").is_not_null() & pl.col("spans"))
    hashes = [with_spans(*row) for row in moved.select("content_hash", "metadata_json").iter_rows()]
    moved = moved.with_columns(content_hash=pl.Series(hashes, dtype=pl.String))
    return found.update(moved.select("video_id", "content_hash"), on="video_id")


def _rough_seconds(config: ExtractConfig, todo: pl.DataFrame, hours: float) -> float | None:
    """Return how long this machine would take, from decoding and encoding the first segment of a few videos."""
    todo = todo.filter(pl.col("duration_s").is_not_null())
    if todo.is_empty():
        return None
    sample = todo.sample(min(TIMED_VIDEOS, todo.height), seed=0)
    # In the precision of a CPU: fp16 needs a GPU, which the machine that plans may not have.
    encoders = {
        name: load_encoder(replace(encoder, precision="auto"), "cpu") for name, encoder in config.encoders.items()
    }
    decoder = Decoder(
        backend=config.decode.backend,
        segment_s=config.decode.segment_s,
        views={name: encoder.view for name, encoder in encoders.items()},
        limits=config.decode.limits,
    )
    video_s, started = 0.0, time.perf_counter()
    for row in work_table(sample, config.decode.segment_s).to_batches(max_chunksize=1):
        try:
            table = next(decoder(pa.Table.from_batches([row])))
        except VideoError:
            continue
        length = table.column("duration_s")[0]  # null: it failed, or these segments are staged
        if not length.is_valid:
            continue
        for name, encoder in encoders.items():
            table = encode_table(table, name, encoder)
        first_s = min(config.decode.segment_s, length.as_py())
        spans_s = row.column("spans_s")[0].as_py() or ()
        taken = [covered_s(spans_s, first_s) if name in config.span_encoders else first_s for name in encoders]
        video_s += sum(taken) / len(taken)
    elapsed = time.perf_counter() - started
    return None if video_s == 0 else elapsed / video_s * hours * 3600 / (os.cpu_count() or 1)
