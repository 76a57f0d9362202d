"""The snapshot: compares what the source lists with what the catalog knows, and records the difference.

- Size, stamp (mtime or etag) and URI unchanged: the file is not read.
- Same content under another URI: a rename; the features stay. If the id changes too, the old id is tombstoned and the
  new id's sample is republished from the published features without decoding (features are found by content hash).
- Other content: the video is extracted again. No longer listed: a tombstone row.
- A sampled hash does not see what lies between its blocks. So a file with another stamp and the same sampled hash keeps
  its features, but a failure of it does not keep it in quarantine: it is tried again (see `to_retry`).
- Where the annotated spans are a part of the content (see `pipelines.store.spans`), new spans are other content; the
  file is not read for it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from hvlm.errors import JobError, Reason, VideoError
from hvlm.video.index import ProbeResult, probe_video
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.quarantine import settle
from pipelines.store.schema import VIDEOS
from pipelines.store.sources import LISTING_SCHEMA, SourceListing
from pipelines.store.spans import file_part, with_spans

# Sixteen blocks over the file: 1 MiB per video whatever its length. The size is hashed too.
_BLOCK_BYTES = 65_536
_NUM_BLOCKS = 16
_SAMPLED_BYTES = _BLOCK_BYTES * _NUM_BLOCKS  # a file up to this is read whole
_FULL_CHUNK_BYTES = 8 * 2**20

PROBE_COLUMNS = ("duration_s", "fps", "codec", "num_frames", "width", "height", "num_streams")
_METADATA = ["subset", "split", "metadata_json", "metadata_hash"]


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """The listing, split by what has to happen.

    Args:
        to_hash: rows (of the listing) that `identify` must read: new, moved or touched files; `hint` has the content
            hash and the probe of the catalog's video that the file may be, or is null; `spans` is `diff_listing`'s.
        relabelled: catalog rows of untouched files with new metadata (perhaps new spans), ready to commit.
        gone: catalog rows of videos that the source no longer lists.
        num_unchanged: untouched files, the relabelled included.
        rejected: the listing's failure rows.
    """

    to_hash: pl.DataFrame
    relabelled: pl.DataFrame
    gone: pl.DataFrame
    num_unchanged: int
    rejected: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSummary:
    """Counts of a snapshot. new + changed + renamed + unchanged + failed = listed videos."""

    new: int
    changed: int
    renamed: int
    unchanged: int
    tombstoned: int
    relabelled: int
    failed: int
    rejected: int


def diff_listing(listing: SourceListing, videos: pl.DataFrame, spans: bool = False) -> SnapshotDiff:
    """Return what is to be done about a listing.

    Args:
        listing: from `list_source`.
        videos: `store.videos()`.
        spans: the annotated spans are a part of the content (see `holds_spans`).
    """
    same = ["video_id", "uri", "size_bytes", "stamp"]
    known = videos.filter(pl.col("content_hash").is_not_null())
    unchanged = known.drop(_METADATA).join(listing.frame.select(*same, *_METADATA), on=same, how="inner")
    old_metadata = videos.select("video_id", pl.col("metadata_hash").alias("old_hash"))
    relabelled = (
        unchanged.join(old_metadata, on="video_id")
        .filter(pl.col("metadata_hash") != pl.col("old_hash"))
        .drop("old_hash")
    )
    if spans:
        hashes = [with_spans(*row) for row in relabelled.select("content_hash", "metadata_json").iter_rows()]
        relabelled = relabelled.with_columns(content_hash=pl.Series(hashes, dtype=pl.String))
    # An id whose rows were rejected is still listed: an ambiguous list must not take a published video down.
    listed = set(listing.frame["video_id"]) | {row["video_id"] for row in listing.rejected}
    return SnapshotDiff(
        to_hash=_with_hints(listing.frame.join(unchanged, on="video_id", how="anti"), known).with_columns(
            spans=pl.lit(spans)
        ),
        relabelled=relabelled.select(list(VIDEOS)),
        gone=videos.filter(~pl.col("video_id").is_in(list(listed))),
        num_unchanged=unchanged.height,
        rejected=listing.rejected,
    )


def _with_hints(to_hash: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Add `hint`: by the id (a touched file), else by size and stamp (a moved one keeps both)."""
    hint = pl.struct("content_hash", *PROBE_COLUMNS)
    probed = known.filter(pl.col("duration_s").is_not_null())
    by_id = probed.select("video_id", hint=hint)
    place = ["size_bytes", "stamp"]
    by_place = probed.unique(place, keep="first", maintain_order=True).select(*place, moved=hint)
    found = to_hash.join(by_id, on="video_id", how="left", maintain_order="left")
    found = found.join(by_place, on=place, how="left", maintain_order="left")
    return found.with_columns(hint=pl.coalesce("hint", "moved")).drop("moved")


def identify(row: Mapping[str, Any], probe: Callable[[str], ProbeResult] | None = None) -> dict[str, Any]:
    """Return a listing row with `content_hash`, the probe's columns and `failure` (reason, message, permanent or None).

    Pure per video: the same file gives the same row. A file that could not be read has no content hash and is tried
    again by the next snapshot; one that is read but is no video has a hash, a failure and no probe. A file whose hash
    is that of its `hint` was probed before: it costs the reading of its hash alone.

    Args:
        row: of a listing, or of `SnapshotDiff.to_hash`.
        probe: reads the headers of a local file; None: `probe_video`. Extraction gives one that can be killed.
    """
    result: dict[str, Any] = dict(row) | {"content_hash": None, "failure": None} | dict.fromkeys(PROBE_COLUMNS)
    try:
        digest = content_hash(row["uri"], row["size_bytes"], row["hash_kind"])
        result["content_hash"] = with_spans(digest, row["metadata_json"]) if row.get("spans") else digest
        hint = row.get("hint") or {}
        if file_part(hint.get("content_hash") or "") == digest:
            return result | {name: hint[name] for name in PROBE_COLUMNS}
        with storage.local_copy(row["uri"]) as path:
            found = (probe or probe_video)(str(path))
        result |= {name: getattr(found, name) for name in PROBE_COLUMNS}
    except VideoError as error:
        result["failure"] = _failure(error)
    except JobError:
        raise  # the machine's fault (the decoding process cannot start): no video is blamed
    except (OSError, EOFError) as error:
        result["failure"] = _failure(storage.unreadable(error, row["uri"]))
    except Exception as error:
        # Every remote storage library has exceptions of its own (credentials, throttling); none may end the job.
        message = f"cannot read {row['uri']}: {type(error).__name__}: {error}"
        result["failure"] = _failure(VideoError(Reason.STORAGE_TRANSIENT, message, permanent=False))
    return result


def _failure(error: VideoError) -> dict[str, Any]:
    return {"reason": str(error.reason), "message": error.message, "permanent": error.permanent}


def content_hash(uri: str, size_bytes: int, kind: str) -> str:
    """Return the sha256 of a file's content: all of it ("full"), or its size and 16 blocks spread over it ("sampled").

    Raises:
        OSError: unreadable. EOFError: shorter than `size_bytes` (it is being written).
    """
    digest = hashlib.sha256(f"{kind}:{size_bytes}:".encode())
    if kind == "full" or size_bytes <= _SAMPLED_BYTES:
        chunks: Iterable[tuple[int, int]] = (
            (start, min(_FULL_CHUNK_BYTES, size_bytes - start)) for start in range(0, size_bytes, _FULL_CHUNK_BYTES)
        )
    else:
        step = (size_bytes - _BLOCK_BYTES) // (_NUM_BLOCKS - 1)
        starts = [*(index * step for index in range(_NUM_BLOCKS - 1)), size_bytes - _BLOCK_BYTES]
        chunks = ((start, _BLOCK_BYTES) for start in starts)
    for start, size in chunks:
        digest.update(storage.read_range(uri, start, size))
    return digest.hexdigest()


def apply_snapshot(
    store: FeatureStore, diff: SnapshotDiff, identified: Iterable[Mapping[str, Any]], run_id: str = ""
) -> SnapshotSummary:
    """Commit a snapshot: failures first, then the changed video rows in one append. Nothing changed: no commit.

    Args:
        identified: `identify(row)` of every row of `diff.to_hash`, in any order.

    Raises:
        RuntimeError: a row of `diff.to_hash` is missing from `identified`, or came twice.
    """
    rows = sorted(identified, key=lambda row: str(row["video_id"]))
    if [row["video_id"] for row in rows] != sorted(diff.to_hash["video_id"]):
        raise RuntimeError(
            f"row conservation: {diff.to_hash.height} videos to read, {len(rows)} identified, or other ids"
        )
    all_videos = store.videos(include_tombstones=True)
    known = {
        row["video_id"]: row for row in all_videos.join(diff.to_hash, on="video_id", how="semi").iter_rows(named=True)
    }
    gone_hashes = set(diff.gone["content_hash"].drop_nulls())
    counts = dict.fromkeys(("new", "changed", "renamed", "unchanged", "failed"), 0)
    hashed = []
    for row in rows:
        counts[_change_of(row, known, gone_hashes)] += 1
        if row["content_hash"] is not None:
            hashed.append(
                {name: row[name] for name in (*LISTING_SCHEMA, "content_hash", *PROBE_COLUMNS)} | {"state": "live"}
            )
    settle(store, to_retry(store.failures(), all_videos, rows).to_dicts(), "retry")
    failures = [_failure_row(row, run_id) for row in rows if row["failure"]]
    store.commit_failures(failures + _news(store, [row | {"run_id": run_id} for row in diff.rejected]))
    number = int(all_videos.select(pl.col("snapshot").max().fill_null(0)).item()) + 1
    frames = [
        pl.DataFrame(hashed, schema={name: kind for name, kind in VIDEOS.items() if name != "snapshot"}),
        diff.relabelled.drop("snapshot"),
        diff.gone.drop("snapshot").with_columns(state=pl.lit("tombstone")),
    ]
    order = list(VIDEOS)
    store.commit_videos(pl.concat([frame.with_columns(snapshot=pl.lit(number)).select(order) for frame in frames]))
    counts["unchanged"] += diff.num_unchanged
    return SnapshotSummary(
        **counts, tombstoned=diff.gone.height, relabelled=diff.relabelled.height, rejected=len(diff.rejected)
    )


def to_retry(failures: pl.DataFrame, videos: pl.DataFrame, identified: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the permanent failures that may be mended: of files that were written anew with the same sampled hash.

    Args:
        failures: `store.failures()`.
        videos: of the catalog, before the snapshot; with tombstones a file that was away counts too.
        identified: rows of `identify`.
    """
    sampled = [
        (row["video_id"], row["content_hash"], row["stamp"])
        for row in identified
        if row["hash_kind"] == "sampled" and row["size_bytes"] > _SAMPLED_BYTES
    ]
    names = ["video_id", "content_hash", "now"]
    touched = pl.DataFrame(sampled, schema=dict.fromkeys(names, pl.String), orient="row")
    touched = touched.join(videos, on=["video_id", "content_hash"]).filter(pl.col("stamp") != pl.col("now"))
    return failures.filter("permanent").join(touched, on=["video_id", "content_hash"], how="semi")


def _change_of(row: Mapping[str, Any], known: dict[str, Any], gone_hashes: set[str]) -> str:
    if row["content_hash"] is None:
        return "failed"
    before = known.get(row["video_id"])
    if before is None or before["state"] == "tombstone":
        return "renamed" if row["content_hash"] in gone_hashes else "new"
    if before["content_hash"] != row["content_hash"]:
        return "changed"
    return "renamed" if before["uri"] != row["uri"] else "unchanged"


def _failure_row(row: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    base = {
        "run_id": run_id,
        "video_id": row["video_id"],
        "uri": row["uri"],
        "content_hash": row["content_hash"] or "",
        "stage": "identify",
    }
    return base | dict(row["failure"])


def _news(store: FeatureStore, rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rejections that are not recorded yet: the same bad list read again is no news."""
    seen = {
        (row["video_id"], row["uri"], row["message"])
        for row in store.failures().filter((pl.col("stage") == "list") & pl.col("permanent").is_not_null()).to_dicts()
    }
    return [row for row in rejected if (row["video_id"], row["uri"], row["message"]) not in seen]
