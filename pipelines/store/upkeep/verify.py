"""Verify: re-reads every stored shard and compares it with the catalog, down to the sample.

Dead samples are read too: a video that comes back, or stands under another id, takes its features from them. What a
repair has marked as damaged is known, and no problem any more; of its shard only the other samples are checked.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from hvlm.data.keys import video_key
from hvlm.data.samples import SampleMeta, decode_sample
from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.liveness import SAMPLE, is_source, is_stored, live_samples
from pipelines.store.staging import FEATURES_FOLDER

_CHUNK_BYTES = 8 * 2**20
TAR_END_BYTES = 1024  # two zero blocks


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Args:
        key, video_id: empty where it concerns the whole shard.
        in_catalog: the catalog contradicts itself; the bytes may be sound, and no extraction mends it.
    """

    shard: str
    key: str
    video_id: str
    message: str
    in_catalog: bool = False

    def __str__(self) -> str:
        sample = f", sample {self.key} (video '{self.video_id}')" if self.key else ""
        return f"{self.shard}{sample}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was read and what was wrong.

    Args:
        num_samples: read, of which num_dead are not live any more.
        num_lost: dead samples that were not read: a repair has marked them as damaged.
        orphans: shards in the store that no catalog row names (a killed publish leaves them; the next one removes
            them).
    """

    version: int
    num_shards: int
    num_samples: int
    num_dead: int
    num_lost: int
    num_videos: int
    num_bytes: int
    problems: tuple[Problem, ...]
    orphans: tuple[str, ...]


def verify_store(store_uri: str, version: int | None = None, num_threads: int = 4) -> VerifyReport:
    """Re-read every stored shard: size and sha256, and of each sample range, key, shape, values, json.

    Args:
        version: of the `samples` table; None: the newest. Of another one only the shards with live samples are read:
            others may be deleted by now.

    Raises:
        UserError: no such store or version; the storage fails, so that nobody knows what is damaged.
    """
    store = FeatureStore.open(store_uri)
    newest = store.samples_version()
    samples = store.samples(newest if version is None else version)
    live = live_samples(samples)
    rows = _stored_rows(samples, live)
    if version not in (None, newest):
        rows = rows.join(live, on="shard", how="semi")
    groups = [
        (str(name[0]), group.sort("offset").to_dicts())
        for name, group in rows.sort("shard").group_by("shard", maintain_order=True)
        if not group["lost"].all()
    ]
    with ThreadPoolExecutor(num_threads) as pool:
        checked = list(pool.map(lambda group: _check_shard(store.uri, *group), groups))
    known = set(samples.filter(is_stored(samples))["shard"])
    folder = storage.join(store.uri, FEATURES_FOLDER)
    with answering(folder):
        stored = [f"{FEATURES_FOLDER}/{name}" for name in storage.list_files(folder)]
    return VerifyReport(
        version=newest if version is None else version,
        num_shards=len(groups),
        num_samples=rows.height - int(rows["lost"].sum()),
        num_dead=rows.filter(~pl.col("live") & ~pl.col("lost")).height,
        num_lost=int(rows["lost"].sum()),
        num_videos=live["video_id"].n_unique(),
        num_bytes=sum(num_bytes for num_bytes, _ in checked),
        problems=(*(problem for _, problems in checked for problem in problems), *_catalog_problems(store, live)),
        orphans=tuple(path for path in stored if path.endswith(".tar") and path not in known),
    )


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Tell a storage that fails from a damaged file: missing files and such that end too early pass as they are.

    Raises:
        UserError: the storage fails, also after the retries.
    """
    try:
        with storage.reachable("store_uri", uri):
            yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            what=uri,
            got=f"{type(error).__name__}: {error}",
            expected="a storage that answers",
            do="check the mount and the permissions, then run the same command again; if the disk has lost the file, "
            "delete it: then it counts as missing, and a repair makes it again",
        ) from error


def _stored_rows(samples: pl.DataFrame, live: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of all stored samples and whether each is `live`, or dead and marked as damaged (`lost`)."""
    rows = samples.with_columns(source=is_source(samples)).filter(is_stored(samples))
    rows = rows.join(live.select(SAMPLE).unique().with_columns(live=pl.lit(True)), on=SAMPLE, how="left")
    rows = rows.with_columns(pl.col("live").fill_null(False))
    return rows.with_columns(lost=~pl.col("source") & ~pl.col("live")).drop("source")


def _check_shard(store_uri: str, shard: str, rows: list[dict[str, Any]]) -> tuple[int, list[Problem]]:
    """Return `(bytes read, problems)` of one shard; `rows` are its samples by offset."""
    uri = storage.join(store_uri, shard)
    try:
        with answering(uri), storage.local_copy(uri) as path:
            return path.stat().st_size, _check_file(path, shard, rows)
    except FileNotFoundError:
        num_live = sum(row["live"] for row in rows)
        return 0, [Problem(shard, "", "", f"the file is missing; it held {len(rows)} samples, {num_live} of them live")]


def _check_file(path: Path, shard: str, rows: list[dict[str, Any]]) -> list[Problem]:
    whole, problems = [], []
    size = path.stat().st_size
    if size != rows[0]["shard_bytes"]:
        whole.append(Problem(shard, "", "", f"{size} bytes, the catalog says {rows[0]['shard_bytes']}"))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        end = 0
        for row in rows:
            found = _sample_problem(file, row)
            if row["offset"] != end:
                found = f"starts at byte {row['offset']}, the sample before it ends at {end}"
            end = row["offset"] + row["size"]
            if found and not row["lost"]:
                found += "" if row["live"] else "; it is not live any more, but a source of features"
                problems.append(Problem(shard, row["key"], row["video_id"], found))
    if end + TAR_END_BYTES != rows[0]["shard_bytes"]:
        found = f"its samples end at byte {end}, the shard at {rows[0]['shard_bytes']}: the catalog lacks samples"
        whole.append(Problem(shard, "", "", found))
    if digest.hexdigest() != rows[0]["shard_sha256"]:
        found = f"sha256 {digest.hexdigest()}, the catalog says {rows[0]['shard_sha256']}"
        whole.append(Problem(shard, "", "", found))
    return problems if any(row["lost"] for row in rows) else [*problems, *whole]


def _sample_problem(file: BinaryIO, row: Mapping[str, Any]) -> str | None:
    file.seek(row["offset"])
    data = file.read(row["size"])
    if hashlib.sha256(data).hexdigest() != row["sample_sha256"]:
        end = row["offset"] + row["size"]
        return f"its bytes {row['offset']} to {end} are not those that were written (sha256 differs)"
    try:
        features, meta = decode_sample(data)
    except Exception as error:  # any way of not being a sample is one finding, whatever library notices it
        return f"not a sample: {type(error).__name__}: {error}"
    if features.dtype != np.float16 or features.shape != (row["num_rows"], row["dim"]):
        return (
            f"features are {features.dtype} {features.shape}, the catalog says float16 {(row['num_rows'], row['dim'])}"
        )
    if not np.isfinite(features).all():
        return f"{int((~np.isfinite(features)).any(axis=1).sum())} rows hold NaN or infinity"
    return _meta_problem(meta, row)


def _meta_problem(meta: SampleMeta, row: Mapping[str, Any]) -> str | None:
    for name in ("key", "video_id", "encoder", "fingerprint", "split", "num_rows", "dim", "duration_s"):
        if getattr(meta, name) != row[name]:
            return f"its json says {name} = {getattr(meta, name)!r}, the catalog {row[name]!r}"
    if meta.key != video_key(meta.video_id):
        return f"the key does not belong to the video '{meta.video_id}'"
    if len(meta.timestamps_s) != meta.num_rows:
        return f"{len(meta.timestamps_s)} time stamps for {meta.num_rows} rows"
    return None


def _catalog_problems(store: FeatureStore, live: pl.DataFrame) -> list[Problem]:
    """Samples that live twice, videos that stand in two splits, and such without their metadata."""
    twice = (
        live.group_by("video_id", "encoder", "fingerprint")
        .agg(pl.len(), pl.col("key").first(), pl.col("shard").min())
        .filter(pl.col("len") > 1)
    )
    mixed = (
        live.group_by("video_id")
        .agg(pl.col("split").unique().sort(), pl.col("key").first(), pl.col("shard").min())
        .filter(pl.col("split").list.len() > 1)
    )
    known = store.metadata(["video_id", "metadata_hash"])
    bare = live.join(known, on=["video_id", "metadata_hash"], how="anti").sort("shard").unique("video_id", keep="first")
    again = "take the video out of the source, run jobs.extract, put it back and run it again"
    found = [(row, f"live {row['len']} times: {again}") for row in twice.to_dicts()]
    found += [(row, f"in the splits {', '.join(row['split'])}: {again}") for row in mixed.to_dicts()]
    found += [
        (row, "the table `videos` has no row with its metadata: run jobs.extract, which writes it")
        for row in bare.to_dicts()
    ]
    return [Problem(row["shard"], row["key"], row["video_id"], text, in_catalog=True) for row, text in found]
