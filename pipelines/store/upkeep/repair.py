"""Repair: what `verify` found damaged is extracted again, and nothing else.

Published generations are never rewritten and readers pin them by their hashes, so there are two ways:

- *mended*: every damaged sample came out with exactly its old bytes (a deterministic encoder on the same hardware). The
  shard is written again in place, and has its old sha256: nobody sees that it was ever damaged.
- *moved*: else its videos are published anew, with all their encoders, in a new generation: what is sound is copied,
  what is damaged is taken from the new extraction. ONE commit adds the new rows and so retires the old; the damaged
  shard stays for the readers that pin an older version.

A damaged sample of no use any more (its video is gone or replaced, or moved by this repair) is marked in the same
commit: no publish takes its features again, should its content come back.

Damaged shards are repaired one name of a generation after another, so a kill loses the work on one of them. What it
leaves are files that no catalog row names; the next job sweeps them.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import polars as pl

from hvlm.data.samples import encode_sample
from hvlm.data.splits import order_hash
from hvlm.data.tar import TarWriter
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.encoders import read_encoder
from pipelines.store.generation import ShardItem, ShardTask, set_folder
from pipelines.store.liveness import SAMPLE, is_stored, live_samples
from pipelines.store.publish import write_manifests
from pipelines.store.schema import SAMPLES
from pipelines.store.shards import make_sample, write_shard
from pipelines.store.staging import remove_tars, sweep_orphans
from pipelines.store.upkeep.verify import TAR_END_BYTES, Problem, answering

SampleId = tuple[str, str, str]
"""(video_id, encoder, fingerprint)"""


@dataclass(frozen=True, slots=True)
class ExtractedAgain:
    """What an extraction of published samples gave.

    Args:
        segments: its staged rows in order, not in the catalog; their tars are whoever asked's to remove.
        failed: why a sample could not be extracted.
    """

    segments: dict[SampleId, list[dict[str, Any]]]
    failed: dict[SampleId, str]

    def tars(self) -> set[str]:
        """Return the staged tars."""
        return {segment["tar"] for segments in self.segments.values() for segment in segments}


Extract = Callable[[pl.DataFrame], ExtractedAgain]
"""Extracts the samples whose catalog rows it is given; each ends in one of the two."""


@dataclass(slots=True, kw_only=True)
class RepairReport:
    """What a repair did.

    Args:
        mended: shards that have their old bytes again. moved: shards whose videos were published anew. extracted:
            videos that were decoded. failed: samples that stay damaged, and why. lost: samples that
            were not extracted again but marked as damaged: the next extraction decodes their content anew, if it is
            there.
    """

    mended: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    extracted: set[str] = field(default_factory=set)
    failed: dict[SampleId, str] = field(default_factory=dict)
    lost: set[SampleId] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Shard:
    """A damaged shard: its rows by offset, and which of them (by key) are to be made again."""

    name: str
    rows: list[dict[str, Any]]
    damaged: frozenset[str]


def repair(store: FeatureStore, problems: Iterable[Problem], extract: Extract) -> RepairReport:
    """Repair the shards that have problems; call it while the store's lease is held.

    Args:
        problems: of the newest version; those of the catalog stay as they are, and so do the samples they name.
        extract: extracts samples again.

    Raises:
        DamagedShardError: a sample that was to be copied is damaged in a way that the problems do not say.
        JobError: another job published meanwhile. UserError: the storage fails.
    """
    sweep_orphans(store)
    named: dict[str, set[str]] = {}
    contradictory = set()
    for problem in problems:
        if problem.in_catalog:
            contradictory.add(problem.video_id)
        else:
            named.setdefault(problem.shard, set()).add(problem.key)
    groups: dict[tuple[str, str], list[str]] = {}  # the shards of all encoders with the same videos
    for shard in sorted(named):
        folder, _, name = shard.rpartition("/")
        groups.setdefault((folder.rpartition("/")[2], name), []).append(shard)
    work = _Repair(store, extract, contradictory)
    for shards in groups.values():
        work.repair({name: named[name] for name in shards})
    return work.report


class _Repair:
    """The state of a repair: the samples as it has left them so far, and what it did."""

    def __init__(self, store: FeatureStore, extract: Extract, contradictory: set[str]) -> None:
        self._store, self._extract, self._contradictory = store, extract, list(contradictory)
        self._version = store.samples_version()
        self._samples = store.samples()
        self._current = set(store.videos(["video_id", "content_hash"]).iter_rows())
        # As published, not as a newer snapshot has it: that describes a content which may not be extracted yet.
        self._metadata = {(video_id, digest): text for video_id, digest, text in store.metadata().iter_rows()}
        self.report = RepairReport()

    def repair(self, named: Mapping[str, set[str]]) -> None:
        """Repair the shards (of the same videos) in which the named keys have problems."""
        shards = self._look_at(named)
        live = live_samples(self._samples)
        damaged = [row for shard in shards for row in shard.rows if row["key"] in shard.damaged]
        # Of what is dead already only the bytes were wanted: without them the shard's videos move.
        wanted = live.join(pl.DataFrame(damaged, schema=SAMPLES), on=["shard", "key"], how="semi")
        unclear = pl.col("video_id").is_in(self._contradictory)
        again = self._extract(wanted.filter(~unclear)) if wanted.filter(~unclear).height else ExtractedAgain({}, {})
        for row in wanted.filter(unclear).iter_rows(named=True):
            again.failed[_id(row)] = "the catalog contradicts itself about its video: mend that first"
        self.report.extracted |= {video_id for video_id, _, _ in again.segments}
        self.report.failed |= again.failed
        items = _Items(self._store, self._metadata, again.segments)
        left = [shard for shard in shards if not _mend(self._store, shard, items)]
        self.report.mended += [shard.name for shard in shards if shard not in left]
        staying = {*self._contradictory, *(video_id for video_id, _, _ in again.failed)}
        in_left = live.filter(pl.col("shard").is_in([shard.name for shard in left]))
        moving = in_left.filter(~pl.col("video_id").is_in(list(staying)))
        latest = self._samples.select(pl.col("gen", "commit").max()).row(0)
        rows = _move(self._store, latest, live.join(moving, on="video_id", how="semi"), items)
        marks = self._marks(latest[1] + 1, left, in_left.filter(pl.col("video_id").is_in(list(staying))))
        self._commit([*rows, *marks])
        self.report.moved += [shard.name for shard in left if rows]
        self.report.lost |= {_id(row) for row in marks} - set(again.segments)
        remove_tars(self._store, again.tars())

    def _look_at(self, named: Mapping[str, set[str]]) -> list[_Shard]:
        stored = is_stored(self._samples) & pl.col("shard").is_in(list(named))
        rows = self._samples.filter(stored).sort("offset").to_dicts()
        shards = []
        for name, keys in named.items():
            mine = [row for row in rows if row["shard"] == name]
            bad = frozenset(row["key"] for row in mine if row["key"] in keys or _stored(self._store, row) is None)
            if mine:  # else a compaction has dropped it since the problem was found
                shards.append(_Shard(name, mine, bad))
        return shards

    def _marks(self, commit: int, left: Iterable[_Shard], staying: pl.DataFrame) -> list[dict[str, Any]]:
        """Return the rows that end the damaged samples as sources of features, but for those that count further on.

        What stays counts as long as the snapshot has the video with this content: a later repair may get at its file.
        Else the next publish retires it, and must not take it for the features of the same content under another id.
        """
        marked = set(self._samples.filter(pl.col("state") == "damaged").select(SAMPLE).iter_rows())
        for row in staying.iter_rows(named=True):
            if (row["video_id"], row["content_hash"]) in self._current:
                marked.add(_name(row))
        bad = [row for shard in left for row in shard.rows if row["key"] in shard.damaged]
        return [row | {"commit": commit, "state": "damaged"} for row in bad if _name(row) not in marked]

    def _commit(self, rows: list[dict[str, Any]]) -> None:
        frame = pl.DataFrame(rows, schema=SAMPLES)
        self._version = self._store.commit_samples(frame, self._version)
        self._samples = pl.concat([self._samples, frame.select(self._samples.columns)])


def _id(row: Mapping[str, Any]) -> SampleId:
    return row["video_id"], row["encoder"], row["fingerprint"]


def _name(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAMPLE)


def _stored(store: FeatureStore, row: Mapping[str, Any]) -> bytes | None:
    """Return a sample's bytes as they were written, or None."""
    uri = storage.join(store.uri, row["shard"])
    try:
        with answering(uri):
            data = storage.read_range(uri, row["offset"], row["size"])
    except (FileNotFoundError, EOFError):
        return None
    return data if hashlib.sha256(data).hexdigest() == row["sample_sha256"] else None


def _mend(store: FeatureStore, shard: _Shard, items: "_Items") -> bool:
    """Write a shard again in place if that gives its old bytes; return whether it did."""
    made: dict[str, bytes] = {}
    for row in shard.rows:
        if row["key"] in shard.damaged:
            data = items.made_again(row)
            if data is None or hashlib.sha256(data).hexdigest() != row["sample_sha256"]:
                return False
            made[row["key"]] = data
    ends = [0, *(row["offset"] + row["size"] for row in shard.rows)]
    if [row["offset"] for row in shard.rows] != ends[:-1] or ends[-1] + TAR_END_BYTES != shard.rows[0]["shard_bytes"]:
        return False  # the catalog does not know all that the shard held

    def write(file: BinaryIO) -> None:
        for row in shard.rows:
            uri = storage.join(store.uri, row["shard"])
            file.write(made.get(row["key"]) or storage.read_range(uri, row["offset"], row["size"]))
        file.write(bytes(TAR_END_BYTES))

    store.check_lease()
    storage.atomic_write(storage.join(store.uri, shard.name), write)
    return True


def _move(store: FeatureStore, latest: tuple[int, int], live: pl.DataFrame, items: "_Items") -> list[dict[str, Any]]:
    """Write the samples of these live rows, all of one shard name of one generation, and return their new rows.

    Args:
        latest: generation and commit; the next ones are taken.
    """
    gen, commit = (number + 1 for number in latest)
    tasks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(live.iter_rows(named=True), key=lambda row: order_hash(row["video_id"])):
        tasks.setdefault((row["encoder"], row["fingerprint"]), []).append(row)
    rows = [
        written
        for members in tasks.values()
        for written in write_shard(items.task(members[0], gen, commit, tuple(map(items.item, members))))
    ]
    write_manifests(store, rows)
    return rows


class _Items:
    """Makes the items of shards: features from the new extraction where there are any, else from the sample itself."""

    def __init__(
        self,
        store: FeatureStore,
        metadata: Mapping[tuple[str, str], str],
        segments: Mapping[SampleId, list[dict[str, Any]]],
    ) -> None:
        self._store, self._metadata, self._segments = store, metadata, segments

    def item(self, row: Mapping[str, Any]) -> ShardItem:
        """Return the item of a live row."""
        segments = self._segments.get(_id(row))
        return ShardItem(
            video_id=row["video_id"],
            key=row["key"],
            content_hash=row["content_hash"],
            metadata_hash=row["metadata_hash"],
            metadata_json=self._metadata[row["video_id"], row["metadata_hash"]],
            segments=tuple(segments or ()),
            published=None if segments else (row["shard"], row["offset"], row["size"], row["sample_sha256"]),
        )

    def task(self, row: Mapping[str, Any], gen: int, commit: int, items: tuple[ShardItem, ...]) -> ShardTask:
        """Return the task of a shard of the same name, encoder and split as a row's."""
        folder = set_folder(row["encoder"], row["fingerprint"], gen)
        return ShardTask(
            store_uri=self._store.uri,
            commit=commit,
            gen=gen,
            encoder=row["encoder"],
            fingerprint=row["fingerprint"],
            extractor=read_encoder(self._store.uri, row["encoder"], row["fingerprint"]).extractor,
            dim=row["dim"],
            split=row["split"],
            shard=f"{folder}/{row['shard'].rpartition('/')[2]}",
            items=items,
            lease_token=self._store.lease_token(),
        )

    def made_again(self, row: Mapping[str, Any]) -> bytes | None:
        """Return a sample's bytes from the new extraction, or None if it has none."""
        if _id(row) not in self._segments:
            return None
        sample = make_sample(self.task(row, row["gen"], row["commit"], ()), self.item(row))
        buffer = io.BytesIO()
        writer = TarWriter(buffer)
        for name, data in encode_sample(*sample):
            writer.add(name, data)
        return buffer.getvalue()
