"""Staging: each write task puts one tar under `staging/{run_id}/` and returns its rows; the driver commits the rows.

A staged range holds `{key}.{segment_index:06d}.features.npy` (num_rows x D float16) and `....times.npy` (num_rows
float64 seconds). A tar whose rows were never committed (a kill between the two) is swept at the next start.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from hvlm.data.keys import video_key
from hvlm.data.samples import array_from_npy, array_to_npy
from hvlm.data.tar import HashingSink, TarWriter, read_members
from hvlm.errors import JobError, UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.spans import file_part

logger = logging.getLogger(__name__)

STAGING_FOLDER = "staging"
FEATURES_FOLDER = "features"
# Small copies of the videos (`decode.cache`), named {content_hash}-….copy. They end like no video, so that a store
# inside the folder of its source does not become a source itself.
COPIES_FOLDER, COPY_ENDING = "frames", ".copy"
# Ends the layout of segments that are made of the decodable part of a damaged video: they go together with no others.
SALVAGED = ",salvaged"


class DamagedSegmentError(JobError):
    """A staged segment has other bytes than were written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagingItem:
    """The features of one segment by one encoder.

    Args:
        features: (num_rows, D) float16; num_rows may be 0 (every segment of a video is staged for every encoder).
        times_s: (num_rows,) float64, seconds of each row's first frame.
        layout: names the way the video was cut; only segments of one layout are put together.
        row_start: index of the first row in the whole video.
    """

    video_id: str
    key: str
    content_hash: str
    encoder: str
    fingerprint: str
    layout: str
    segment_index: int
    num_segments: int
    row_start: int
    num_rows: int
    duration_s: float
    fps: float | None
    stride_s: float
    clip_s: float
    offset_s: float
    features: npt.NDArray[np.float16]
    times_s: npt.NDArray[np.float64]


def write_staging_tar(store_uri: str, run_id: str, items: Iterable[StagingItem]) -> list[dict[str, Any]]:
    """Write the items to one tar (temporary name, then final name) and return the rows for `commit_staged`.

    Args:
        items: consumed one by one; only one is in memory at a time if it is a generator.

    Raises:
        ValueError: features that are not (num_rows, D) float16 and finite, or times of another length.
        UserError: the disk is full.
    """
    tar = f"{STAGING_FOLDER}/{run_id}/{uuid.uuid4().hex}.tar"
    rows: list[dict[str, Any]] = []

    def write(file: BinaryIO) -> None:
        rows.clear()
        sink = HashingSink(file)
        writer = TarWriter(sink)
        for item in items:
            rows.append(_add_item(writer, item) | {"run_id": run_id, "tar": tar, "sha256": sink.take_part()})
        writer.finish()

    storage.atomic_write(storage.join(store_uri, tar), write)
    return rows


def read_segment(store_uri: str, row: Mapping[str, Any]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float64]]:
    """Return `(features (num_rows, D) float16, times_s (num_rows,))` of a staged row.

    Raises:
        DamagedSegmentError: other bytes than were written.
        ValueError: the row's numbers are not those of the segment.
    """
    stem = _stem(row["key"], row["segment_index"])
    try:
        data = storage.read_range(storage.join(store_uri, row["tar"]), row["offset"], row["size"])
    except EOFError as error:
        raise DamagedSegmentError(f"{row['tar']} is cut short: {error}") from error
    if row["sha256"] is not None and hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise DamagedSegmentError(f"segment {stem} in {row['tar']} has other bytes than were written")
    members = read_members(data)
    features, times_s = (array_from_npy(members[f"{stem}.{name}.npy"]) for name in ("features", "times"))
    if features.shape != (row["num_rows"], row["dim"]) or times_s.shape != (row["num_rows"],):
        raise ValueError(
            f"{row['tar']} has {features.shape} for segment {stem}, the catalog says {(row['num_rows'], row['dim'])}"
        )
    return features, times_s


def discard_staged(store: FeatureStore, encoder: str) -> pl.DataFrame:
    """Drop an encoder's staged segments and return their rows; the next extraction makes them again.

    Args:
        encoder: its name, or `name-` + the first 8 digits of the fingerprint.

    Raises:
        UserError: nothing of it is staged.
    """
    staged = store.staged()
    names = staged.select(name=pl.col("encoder") + "-" + pl.col("fingerprint").str.head(8))["name"]
    chosen = (staged["encoder"] == encoder) | (names == encoder)
    if not chosen.any():
        raise UserError(
            what="encoder",
            got=encoder,
            expected=f"one with staged features: {', '.join(sorted(set(names))) or 'there is none'}",
            do="correct the name",
        )
    kept = staged.filter(~chosen)
    store.replace_staged(kept)
    remove_tars(store, set(staged["tar"]) - set(kept["tar"]))
    return staged.filter(chosen)


def discard_run(store: FeatureStore, run_id: str) -> int:
    """Drop what a run staged and return the number of segments; the next start sweeps its tars.

    Its write tasks may still be at work, so no file is touched here.
    """
    staged = store.staged()
    kept = staged.filter(pl.col("run_id") != run_id)
    if kept.height < staged.height:
        store.replace_staged(kept)
    return staged.height - kept.height


def discard_damaged(store: FeatureStore, rows: Sequence[Mapping[str, Any]]) -> None:
    """Drop staged rows whose bytes are damaged; the next extraction makes these segments again."""
    damaged = pl.DataFrame([{name: row[name] for name in ("tar", "offset")} for row in rows])
    store.replace_staged(store.staged().join(damaged, on=["tar", "offset"], how="anti"))
    videos = sorted({row["video_id"] for row in rows})
    text = (
        "%d staged segments in %s have other bytes than were written (e.g. in %s): %d videos (%s) are not published now"
    )
    logger.warning(text, len(rows), store.uri, rows[0]["tar"], len(videos), ", ".join(videos[:5]))
    logger.warning("the next extraction makes these segments again; if it happens often, check the disk")


def remove_tars(store: FeatureStore, tars: Iterable[str]) -> None:
    """Delete staged tars that no catalog row names any more.

    Raises:
        LeaseLost: the lease is not ours any more.
    """
    for tar in sorted(tars):
        _remove(store, tar)


def sweep_orphans(store: FeatureStore, folders: Sequence[str] = (STAGING_FOLDER, FEATURES_FOLDER)) -> list[str]:
    """Delete what a killed run left and return the paths: tars that no catalog row names, temporary files.

    With `staging` among the folders, staged rows whose tar is gone are dropped too: their segments are made again.
    Only for the one writer of the store, and for `staging` only while no write task is at work.
    """
    if STAGING_FOLDER in folders:
        _drop_rows_without_tar(store)
    shards = store.shards()
    sets = {shard.rpartition("/")[0] for shard in shards}
    referenced = shards | set(store.staged()["tar"])
    swept = []
    for folder in folders:
        for name in storage.list_files(storage.join(store.uri, folder)):
            path = f"{folder}/{name}"
            orphan = path.endswith(".tar") and path not in referenced
            orphan |= path.endswith("/manifest.json") and path.rpartition("/")[0] not in sets
            if orphan or storage.TEMP_MARK in path:
                _remove(store, path)
                swept.append(path)
    if swept:
        logger.info("swept %d orphaned files of an earlier run from %s", len(swept), store.uri)
    return swept


def _remove(store: FeatureStore, path: str) -> None:
    store.check_lease()  # a job that slept past its lease must not delete what the next one has written
    storage.remove(storage.join(store.uri, path))


def sweep_copies(store: FeatureStore) -> list[str]:
    """Delete the small copies, in the store, of contents that no video has any more, and half-written ones.

    Returns:
        Their paths. A copy may go at any time: it is made again when it is needed.
    """
    live = {file_part(content_hash) for content_hash in store.videos(["content_hash"])["content_hash"].drop_nulls()}
    swept = []
    for name in storage.list_files(storage.join(store.uri, COPIES_FOLDER)):
        stale = name.endswith(COPY_ENDING) and name.rpartition("/")[2].partition("-")[0] not in live
        if stale or storage.TEMP_MARK in name:
            _remove(store, f"{COPIES_FOLDER}/{name}")
            swept.append(f"{COPIES_FOLDER}/{name}")
    return swept


def _drop_rows_without_tar(store: FeatureStore) -> None:
    """One tar that is gone (a lost disk, a hand that tidied up) would otherwise stop every publish."""
    staged = store.staged()
    there = {f"{STAGING_FOLDER}/{name}" for name in storage.list_files(storage.join(store.uri, STAGING_FOLDER))}
    unlisted = sorted(set(staged["tar"]) - there)
    missing = [tar for tar in unlisted if not storage.exists(storage.join(store.uri, tar))]  # it may be listed late
    if missing:
        kept = staged.filter(~pl.col("tar").is_in(missing))
        number = staged.height - kept.height
        text = "%d staged tars are gone from %s (e.g. %s): their %d segments are made again"
        logger.warning(text, len(missing), store.uri, missing[0], number)
        store.replace_staged(kept)


def _add_item(writer: TarWriter, item: StagingItem) -> dict[str, Any]:
    features, times_s = item.features, np.asarray(item.times_s, np.float64)
    name = f"'{item.video_id}', segment {item.segment_index}, encoder '{item.encoder}'"
    if features.dtype != np.float16 or features.ndim != 2:
        raise ValueError(f"features of {name} are {features.dtype} {features.shape}, not (num_rows, D) float16")
    if features.shape[0] != item.num_rows or times_s.shape != (item.num_rows,):
        raise ValueError(f"{name} has {features.shape[0]} rows and {times_s.shape[0]} times, not {item.num_rows}")
    if item.key != video_key(item.video_id):
        raise ValueError(f"{name} has the key '{item.key}', not '{video_key(item.video_id)}'")
    if not np.isfinite(features).all():
        raise ValueError(f"features of {name} hold NaN or values beyond float16")
    stem = _stem(item.key, item.segment_index)
    offset, size = writer.add(f"{stem}.features.npy", array_to_npy(features))
    _, times_size = writer.add(f"{stem}.times.npy", array_to_npy(times_s))
    fields = (field for field in StagingItem.__dataclass_fields__ if field not in ("features", "times_s"))
    row = {field: getattr(item, field) for field in fields}
    return row | {"dim": features.shape[1], "offset": offset, "size": size + times_size}


def _stem(key: str, segment_index: int) -> str:
    return f"{key}.{segment_index:06d}"
