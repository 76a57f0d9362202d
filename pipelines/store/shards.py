"""Writes one shard: a pure function of its task, so that a second writing gives the same bytes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from hvlm.data.samples import SampleMeta, decode_sample, encode_sample, fit_segments, misfits
from hvlm.data.tar import HashingSink, TarWriter
from hvlm.errors import JobError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.generation import ShardItem, ShardTask
from pipelines.store.lease import require_token
from pipelines.store.odd_rows import OddRows
from pipelines.store.spans import file_part
from pipelines.store.staging import SALVAGED, DamagedSegmentError, read_segment


class DamagedShardError(JobError):
    """A published shard that a publish must copy from is lost or has other bytes than were written."""


def write_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Write a shard (temporary name, then final name) and return its catalog rows; one sample is in memory at a time.

    Beside the columns of the catalog each row has its shard's counts of odd rows (see `OddRows.counts`).

    Raises:
        ValueError: staged segments that do not join, or features of another dimension.
        DamagedShardError: features that were to be copied from a published shard are lost or damaged.
        DamagedSegmentError: a staged segment has other bytes than were written.
        LeaseLost: the job that gave the task holds the lease no more; nothing is left under the final name.
        UserError: the disk is full; nothing is left under the final name.
    """
    rows: list[dict[str, Any]] = []
    total: dict[str, Any] = {}

    def write(file: BinaryIO) -> None:
        rows.clear()
        sink, odd = HashingSink(file), OddRows()
        writer = TarWriter(sink)
        for item in task.items:
            features, meta = make_sample(task, item)
            rows.append(_write_sample(writer, sink, task, item, (features, meta)))
            odd.add(features, file_part(item.content_hash))
        total["shard_bytes"] = writer.finish()
        total["shard_sha256"] = sink.whole()
        total.update(odd.counts())
        if task.lease_token:  # a job that died may leave a worker, whose late shard must not replace another job's
            require_token(task.store_uri, task.lease_token)

    storage.atomic_write(storage.join(task.store_uri, task.shard), write)
    return [row | total for row in rows]


def damaged_segments(task: ShardTask) -> list[dict[str, Any]]:
    """Return the staged rows of a task whose bytes are not those that were written."""
    damaged = []
    for row in (row for item in task.items for row in item.segments):
        try:
            read_segment(task.store_uri, row)
        except DamagedSegmentError:
            damaged.append(row)
    return damaged


def set_manifest(rows: list[dict[str, Any]]) -> bytes:
    """Return the `manifest.json` of a shard set, for people and for tools without Delta Lake.

    Args:
        rows: of `write_shard`, of one encoder in one generation.
    """
    shards: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["shard"], row["offset"])):
        name = row["shard"].rpartition("/")[2]
        shard = shards.setdefault(
            name,
            {"sha256": row["shard_sha256"], "bytes": row["shard_bytes"], "split": row["split"], "samples": []}
            | {name: row[name] for name in OddRows().counts()},
        )
        sample = {name: row[name] for name in ("key", "video_id", "content_hash", "num_rows", "offset", "size")}
        shard["samples"].append(sample | {"span_s": [0.0, row["duration_s"]], "sha256": row["sample_sha256"]})
    head = {name: rows[0][name] for name in ("gen", "encoder", "fingerprint", "dim")}
    return json.dumps(head | {"shards": shards}, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n"


def cut_segments(store: FeatureStore) -> list[str]:
    """Return `id: segment ... cut` for the segments of the snapshot's videos that end beyond the video itself.

    The annotation file's own durations are checked when it is read; these are the durations of the files.
    """
    videos = store.videos(["video_id", "duration_s", "metadata_json"]).filter(
        pl.col("duration_s").is_not_null() & pl.col("metadata_json").str.contains('"segment":[', literal=True)
    )
    found = []
    for video_id, duration_s, text in videos.iter_rows():
        metadata = json.loads(text)
        items = metadata["annotations"] + metadata["captions"] + metadata.get("summaries", [])
        found += [f"{video_id}: {odd}" for odd in misfits(items, duration_s)]
    return found


def make_sample(task: ShardTask, item: ShardItem) -> tuple[npt.NDArray[np.float16], SampleMeta]:
    """Return a sample's features and metadata, from staging or copied from a published sample.

    Raises:
        ValueError: staged segments that do not join, or features of another dimension.
        DamagedShardError: features that were to be copied from a published shard are lost or damaged.
    """
    features, timing = _from_published(task, item) if item.published else _from_staging(task, item)
    if features.shape[1] != task.dim:
        raise ValueError(
            f"features of '{item.video_id}' by {task.encoder} have dimension {features.shape[1]}, not {task.dim}"
        )
    return features, _meta(task, item, timing, features.shape[0])


def _write_sample(
    writer: TarWriter,
    sink: HashingSink,
    task: ShardTask,
    item: ShardItem,
    sample: tuple[npt.NDArray[np.float16], SampleMeta],
) -> dict[str, Any]:
    meta = sample[1]
    ranges = [writer.add(name, content) for name, content in encode_sample(*sample)]
    return {
        "commit": task.commit,
        "gen": task.gen,
        "encoder": task.encoder,
        "fingerprint": task.fingerprint,
        "split": task.split,
        "shard": task.shard,
        "key": item.key,
        "video_id": item.video_id,
        "content_hash": item.content_hash,
        "metadata_hash": item.metadata_hash,
        "num_rows": meta.num_rows,
        "dim": meta.dim,
        "duration_s": meta.duration_s,
        "offset": ranges[0][0],
        "size": sum(size for _, size in ranges),
        "sample_sha256": sink.take_part(),
        "state": "live",
    }


def _from_staging(task: ShardTask, item: ShardItem) -> tuple[npt.NDArray[np.float16], dict[str, Any]]:
    parts, times, next_row = [], [], 0
    for index, row in enumerate(item.segments):
        if row["segment_index"] != index or row["row_start"] != next_row:
            found = f"segment {row['segment_index']} at row {row['row_start']}"
            raise ValueError(
                f"'{item.video_id}' by {task.encoder}: {found}, expected segment {index} at row {next_row}"
            )
        features, times_s = read_segment(task.store_uri, row)
        parts.append(features)
        times.append(times_s)
        next_row += row["num_rows"]
    timing: dict[str, Any] = {
        name: item.segments[0][name] for name in ("duration_s", "fps", "stride_s", "clip_s", "offset_s")
    }
    timing["truncated"] = item.segments[0]["layout"].endswith(SALVAGED)
    return np.concatenate(parts), timing | {"timestamps_s": np.concatenate(times).tolist()}


def _from_published(task: ShardTask, item: ShardItem) -> tuple[npt.NDArray[np.float16], dict[str, Any]]:
    shard, offset, size, sha256 = item.published or ("", 0, 0, "")
    try:
        data = storage.read_range(storage.join(task.store_uri, shard), offset, size)
    except (FileNotFoundError, EOFError) as error:
        found = "is lost" if isinstance(error, FileNotFoundError) else str(error)
        raise _damaged(task.store_uri, shard, item.video_id, found) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        found = f"differs from what was written (bytes {offset} to {offset + size})"
        raise _damaged(task.store_uri, shard, item.video_id, found)
    features, meta = decode_sample(data)
    if meta.fingerprint != task.fingerprint:
        raise ValueError(
            f"{shard} has the fingerprint {meta.fingerprint} for '{meta.video_id}', the catalog says {task.fingerprint}"
        )
    copied = ("duration_s", "fps", "stride_s", "clip_s", "offset_s", "timestamps_s", "truncated")
    return features, {name: getattr(meta, name) for name in copied}


def _damaged(store_uri: str, shard: str, video_id: str, found: str) -> DamagedShardError:
    uri = storage.join(store_uri, shard)
    return DamagedShardError(
        f"the published shard {uri} {found}; the new sample of video '{video_id}' is made of its features. Run "
        f"`python -m jobs.verify --config jobs/configs/verify.yaml store_uri={store_uri} repair=true`, then this "
        "command again"
    )


def _meta(task: ShardTask, item: ShardItem, timing: Mapping[str, Any], num_rows: int) -> SampleMeta:
    metadata = json.loads(item.metadata_json)
    duration_s = timing["duration_s"]
    return SampleMeta(
        video_id=item.video_id,
        key=item.key,
        split=task.split,
        subset=metadata["subset"],
        num_rows=num_rows,
        dim=task.dim,
        encoder=task.encoder,
        fingerprint=task.fingerprint,
        extractor=task.extractor,
        span_s=(0.0, duration_s),
        annotations=fit_segments(metadata["annotations"], duration_s),
        captions=fit_segments(metadata["captions"], duration_s),
        summaries=fit_segments(metadata.get("summaries", []), duration_s),
        summary=metadata["summary"],
        columns=metadata["columns"],
        **timing,
    )
