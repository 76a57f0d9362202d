"""Existing features + annotations become a store of the same kind, by the same snapshot, plan, staging and publish.

What the rows mean (dimension, stride, clip length, extractor) stands in the config and is never guessed.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hvlm.data.activitynet import Reconciliation
from hvlm.errors import UserError, VideoError
from pipelines.store.catalog import FeatureStore
from pipelines.store.claim import claim_source
from pipelines.store.encoders import EncoderColumn
from pipelines.store.feature_files import FeatureFormat, FeatureReader, ImportConfig, check_features
from pipelines.store.fingerprint import fingerprint
from pipelines.store.plan import make_plan
from pipelines.store.publish import PublishSummary, publish
from pipelines.store.shards import cut_segments
from pipelines.store.snapshot import PROBE_COLUMNS, SnapshotSummary, apply_snapshot, diff_listing
from pipelines.store.sources import SourceListing
from pipelines.store.staging import StagingItem, sweep_orphans, write_staging_tar
from pipelines.store.text_features import TextFeatures, add_text_features, read_text_features
from pipelines.store.upkeep.maintenance import tidy_tables

_STAGING_TAR_BYTES = 64 * 2**20
_LAYOUT = "whole"
# Features that cover less or more of a video than this share speak for a wrong stride_s (1 s for 0.64 s).
_DOUBTFUL_COVERAGE = (0.75, 1.33)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did.

    Args:
        num_zero_rows: all-zero rows of the arrays that this run imported (they are kept).
        num_new_texts: text features that the store did not have; None where none were given.
        failures: failure rows of this run; rejected: entries that are no video (e.g. two files of one id).
        reconciliation: ids without annotation, annotations without features; annotation_problems: cut or dropped rows.
        cut: annotated segments that end beyond their video.
        doubtful: (video id, seconds that its rows cover, annotated seconds) where the two disagree by far.
    """

    snapshot: SnapshotSummary
    published: PublishSummary
    num_zero_rows: int
    num_new_texts: int | None
    failures: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    reconciliation: Reconciliation | None
    annotation_problems: list[tuple[str, str]]
    cut: list[str]
    doubtful: list[tuple[str, float, float]]


def import_features(config: ImportConfig) -> ImportReport:
    """Bring the store up to date with the feature files; run again, it reads only what changed.

    Raises:
        UserError: source, annotations or text features wrong, the store follows another source, or every array has
            another dimension than the config says.
        StoreIsHeld, LeaseLost: another job writes into the store, or has taken it over.
    """
    reader = FeatureReader(config)
    listing = reader.listing()
    texts = None if config.text_features_uri is None else read_text_features(config.text_features_uri)
    store = FeatureStore.open(config.store_uri, create=True)
    with store.writing("jobs.import_features"):
        return _import(config, (reader, listing, texts), store)


def _import(
    config: ImportConfig, given: tuple[FeatureReader, SourceListing, TextFeatures | None], store: FeatureStore
) -> ImportReport:
    reader, listing, texts = given
    claim_source(store, "features", config.features_uri, config.replace_source)
    sweep_orphans(store)
    tidy_tables(store)
    run_id = f"import-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
    diff = diff_listing(listing, store.videos())
    importer = _Importer(config.format, reader, _claimed_durations(listing), run_id)
    with reader.opened():
        identified = [importer.identify(row) for row in diff.to_hash.iter_rows(named=True)]
        _refuse_other_dimension(config.format, identified, listing.frame.height)
        snapshot = apply_snapshot(store, diff, identified, run_id)
        fingerprints = {config.format.encoder: importer.column.fingerprint}
        plan = make_plan(store.frames(), fingerprints, splits=config.publish.splits)
        for items in _batches(importer.items(plan.todo.iter_rows(named=True))):
            store.commit_staged(write_staging_tar(store.uri, run_id, items))
    store.commit_failures(importer.failures)
    # Before the features are published: nobody then sees a column whose texts are not there yet.
    num_new_texts = None if texts is None else add_text_features(store.uri, importer.column.fingerprint, texts)
    published = publish(store, config.publish, {config.format.encoder: importer.column})
    return ImportReport(
        snapshot=snapshot,
        published=published,
        num_zero_rows=importer.num_zero_rows,
        num_new_texts=num_new_texts,
        failures=[row | row["failure"] for row in identified if row["failure"]] + importer.failures,
        rejected=listing.rejected,
        reconciliation=listing.reconciliation,
        annotation_problems=listing.annotations.problems if listing.annotations else [],
        cut=cut_segments(store) if listing.annotations else [],
        doubtful=importer.doubtful,
    )


def encoder_column(described: FeatureFormat) -> EncoderColumn:
    """Return the store column of imported features: another stride, extractor or dimension is another fingerprint.

    So is another text encoder; without one the fingerprint is that of stores from before there were any.
    """
    values = {name: value for name, value in asdict(described).items() if name != "encoder"}
    if described.text_extractor is None:
        del values["text_extractor"]
    identity = {"kind": "import", "dtype": "float16"} | values
    return EncoderColumn(fingerprint=fingerprint(identity), dim=described.dim, identity=identity)


@dataclass(slots=True)
class _Importer:
    """Turns arrays into staged items, and keeps count of what was odd."""

    described: FeatureFormat
    reader: FeatureReader
    durations: Mapping[str, float]
    run_id: str
    num_zero_rows: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    doubtful: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def column(self) -> EncoderColumn:
        return encoder_column(self.described)

    def identify(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What `snapshot.identify` does for videos, for arrays: content hash, duration, or the failure."""
        result = dict(row) | {"content_hash": None, "failure": None} | dict.fromkeys(PROBE_COLUMNS)
        try:
            array = np.ascontiguousarray(self.reader.read(row["uri"]))
            content = f"{array.dtype.str}{array.shape}".encode() + array.tobytes()
            result["content_hash"] = hashlib.sha256(content).hexdigest()
            features = check_features(array, self.described, row["video_id"])
        except VideoError as error:
            return result | {"failure": self._failure(error)}
        return result | {"duration_s": self._duration_s(row["video_id"], len(features))}

    def items(self, videos: Iterator[dict[str, Any]]) -> Iterator[StagingItem]:
        """Yield the features of the planned videos; those that fail go to `failures`."""
        for video in videos:
            try:
                features = check_features(self.reader.read(video["uri"]), self.described, video["video_id"])
            except VideoError as error:
                base = {name: video[name] for name in ("video_id", "uri", "content_hash")}
                self.failures.append(base | {"run_id": self.run_id, "stage": "stage"} | self._failure(error))
                continue
            self.num_zero_rows += int((~features.any(axis=1)).sum())
            described, num_rows = self.described, len(features)
            self._check_coverage(video["video_id"], num_rows)
            yield StagingItem(
                video_id=video["video_id"],
                key=video["key"],
                content_hash=video["content_hash"],
                encoder=described.encoder,
                fingerprint=self.column.fingerprint,
                layout=_LAYOUT,
                segment_index=0,
                num_segments=1,
                row_start=0,
                num_rows=num_rows,
                duration_s=self._duration_s(video["video_id"], num_rows),
                fps=described.fps,
                stride_s=described.stride_s,
                clip_s=described.clip_s,
                offset_s=described.offset_s,
                features=features,
                times_s=described.offset_s + described.stride_s * np.arange(num_rows, dtype=np.float64),
            )

    def _covered_s(self, num_rows: int) -> float:
        described = self.described
        return described.offset_s + (num_rows - 1) * described.stride_s + described.clip_s

    def _duration_s(self, video_id: str, num_rows: int) -> float:
        """The annotated duration, else the end of the last row."""
        return self.durations.get(video_id) or self._covered_s(num_rows)

    def _check_coverage(self, video_id: str, num_rows: int) -> None:
        claimed, covered = self.durations.get(video_id), self._covered_s(num_rows)
        if claimed and not _DOUBTFUL_COVERAGE[0] <= covered / claimed <= _DOUBTFUL_COVERAGE[1]:
            self.doubtful.append((video_id, covered, claimed))

    def _failure(self, error: VideoError) -> dict[str, Any]:
        """The failure holds for this format only: with a corrected config the array is tried again."""
        cause = {"reason": str(error.reason), "message": error.message, "permanent": error.permanent}
        return cause | {"encoder": self.described.encoder, "fingerprint": self.column.fingerprint}


def _claimed_durations(listing: SourceListing) -> dict[str, float]:
    if listing.annotations is None:
        return {}
    found = {video_id: listing.annotations.find(video_id) for video_id in listing.frame["video_id"]}
    return {video_id: video.duration_s for video_id, video in found.items() if video and video.duration_s}


def _refuse_other_dimension(described: FeatureFormat, identified: list[dict[str, Any]], num_listed: int) -> None:
    """Arrays of another dimension are quarantine rows; only when the whole source is such is the config wrong."""
    failed = [row for row in identified if row["failure"] and "has the shape" in row["failure"]["message"]]
    if failed and len(failed) == num_listed:
        raise UserError(
            what="format.dim",
            got=f"{described.dim}, but none of {len(failed)} arrays has it (e.g. {failed[0]['failure']['message']})",
            expected="the dimension of the features, as (T, D)",
            do="correct format.dim",
        )


def _batches(items: Iterator[StagingItem]) -> Iterator[list[StagingItem]]:
    """Group items into tars of about 64 MiB."""
    batch: list[StagingItem] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.features.nbytes
        if size >= _STAGING_TAR_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
