"""The feature store's catalog: four Delta Lake tables under `{store_uri}/catalog`, read with polars.

Every write is one ACID commit. Credentials for remote stores come from the environment, as in `infra.storage`.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from hvlm.errors import JobError, UserError
from infra import retries, storage
from pipelines.store.lease import Lease
from pipelines.store.liveness import is_stored, live_samples
from pipelines.store.schema import APPEND_ONLY, SAMPLES, SCHEMA_VERSION, TABLES
from pipelines.store.tables import check_place, clean_errors, create_table, scan_table

_FORMAT = "hierarchicalvlm feature store"
# A training run may pin a version for years; Delta's default would drop its log after 30 days.
_RETENTION = "interval 3650 days"
# Failure rows of the same cause are one failure with several attempts.
_FAILURE_KEY = ["video_id", "uri", "stage", "content_hash", "encoder", "fingerprint"]
# Names a commit in the log of its table: whether one whose answer was lost has been made.
_COMMIT_ID, _RECENT = "hvlm_commit", 20
# What planning reads; over a million videos the other columns are a gigabyte.
_PAIR = ["video_id", "content_hash", "encoder", "fingerprint"]
_FOR_PLANNING = {
    "videos": ["video_id", "key", "uri", "content_hash", "duration_s", "subset", "split", "metadata_hash"],
    "staged": [*_PAIR, "layout", "segment_index", "num_segments", "tar", "offset"],
    "samples": [*_PAIR, "commit", "gen", "split", "metadata_hash", "state"],
}


@dataclass(frozen=True, slots=True)
class StoreFrames:
    """The catalog at one moment: current videos, staged segments, published samples, failures."""

    videos: pl.DataFrame
    staged: pl.DataFrame
    samples: pl.DataFrame
    failures: pl.DataFrame


class FeatureStore:
    """Reads and writes the catalog of one store; make it with `FeatureStore.open`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lease: Lease | None = None
        self._attempts: dict[tuple[Any, ...], int] | None = None

    @classmethod
    def open(cls, uri: str, create: bool = False) -> "FeatureStore":
        """Return the store at a URI, made first if `create` and it is not there.

        Raises:
            UserError: no store there, one that a newer version wrote, or a place that Delta Lake cannot take.
        """
        uri = storage.absolute_uri(uri)
        check_place(uri)
        store, description = cls(uri), storage.join(uri, "store.json")
        with storage.reachable("store_uri", uri):
            if not storage.exists(description):
                if not create:
                    raise UserError(
                        what="store_uri",
                        got=uri,
                        expected="a feature store (a folder with store.json)",
                        do="check the URI or run jobs.extract first",
                    )
                store._create_tables()
                content = json.dumps({"format": _FORMAT, "schema_version": SCHEMA_VERSION}, indent=1)
                storage.atomic_write(description, content.encode() + b"\n")
            _check_description(description)
        return store

    @contextmanager
    def writing(self, job: str) -> Iterator[None]:
        """Hold the store's lease: inside, every commit first proves that the lease is still ours.

        Raises:
            StoreIsHeld: another job writes into the store.
        """
        with Lease(self.uri, job) as self._lease:
            try:
                yield
            finally:
                self._lease = self._attempts = None

    def videos(self, columns: Sequence[str] | None = None, include_tombstones: bool = False) -> pl.DataFrame:
        """Return the current row of every video, by default of those that are there, sorted by id."""
        wanted = list(columns or TABLES["videos"])
        frame = self._scan("videos").select(list(dict.fromkeys([*wanted, "snapshot", "video_id", "state"]))).collect()
        # Sorted are the rows' numbers: each sorting of all columns would be another copy of the table.
        newest = frame.select("snapshot", "video_id", "state", row=pl.int_range(pl.len()))
        newest = newest.sort("snapshot", maintain_order=True).unique("video_id", keep="last").sort("video_id")
        if not include_tombstones:
            newest = newest.filter(pl.col("state") == "live")
        return frame.select(pl.col(wanted).gather(newest["row"]))

    def staged(self) -> pl.DataFrame:
        """Return the staged segments."""
        return self._scan("staged").collect()

    def samples(self, version: int | None = None) -> pl.DataFrame:
        """Return all sample rows at a version (default: the newest), dead ones included; see `liveness.live_samples`.

        Raises:
            UserError: there is no such version, or shards that it needs were deleted.
        """
        frame = self._scan("samples", version).collect()
        if version is not None:
            self._refuse_dropped(version, frame)
        return frame

    def shards(self) -> set[str]:
        """Return the shards that the store holds: of all samples, live or dead, whose generation is not dropped."""
        rows = self._scan("samples").select("state", "gen", "shard").unique().collect()
        return set(rows.filter(is_stored(rows))["shard"])

    def samples_at(self, moment: datetime) -> pl.DataFrame:
        """Return the sample rows of the version that was the newest at a moment (before the first one: no rows)."""
        table = self._table("samples")
        table.load_as_version(moment)
        return scan_table(table).select(list(SAMPLES)).collect()

    def metadata(self, columns: Sequence[str] = ("video_id", "metadata_hash", "metadata_json")) -> pl.DataFrame:
        """Return all metadata that any video has or had: video_id, metadata_hash, metadata_json."""
        frame = self._scan("videos").select(columns)
        return frame.unique(["video_id", "metadata_hash"], maintain_order=True).collect()

    def failures(self, first_seen: bool = False) -> pl.DataFrame:
        """Return the newest row of every failure; `attempts` counts how often it happened.

        Args:
            first_seen: add `first_s`, the Unix time of the first row of the same failure.
        """
        frame = self._scan("failures").collect()
        if first_seen:
            frame = frame.with_columns(first_s=pl.col("at_s").min().over(_FAILURE_KEY))
        return frame.sort("at_s", "attempts", maintain_order=True).unique(
            _FAILURE_KEY, keep="last", maintain_order=True
        )

    def frames(self, full: bool = False) -> StoreFrames:
        """Return the four tables; unless `full`, with the columns that planning reads."""
        columns = {name: list(schema) for name, schema in TABLES.items()} | ({} if full else _FOR_PLANNING)
        staged, samples = (self._scan(name).select(columns[name]).collect() for name in ("staged", "samples"))
        return StoreFrames(self.videos(columns["videos"]), staged, samples, self.failures())

    def samples_version(self) -> int:
        """Return the version of `samples` that a training run records."""
        return self._table("samples").version()

    def commit_videos(self, frame: pl.DataFrame) -> None:
        """Append snapshot rows in one commit."""
        self._append("videos", frame)

    def commit_staged(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append staged segments in one commit."""
        self._append("staged", self._typed("staged", rows))

    def replace_staged(self, frame: pl.DataFrame) -> None:
        """Replace the staged table in one commit (after a publish)."""
        self._commit("staged", frame, mode="overwrite")

    def commit_failures(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append failures in one commit; `attempts` and `at_s` are filled in, missing texts are empty."""
        if not rows:
            return
        known = self._known_attempts()
        full = []
        for row in rows:
            values = {"run_id": "", "uri": "", "content_hash": "", "encoder": "", "fingerprint": "", "decoder": ""}
            values |= row
            key = tuple(values[name] for name in _FAILURE_KEY)
            known[key] = known.get(key, 0) + 1
            full.append(values | {"attempts": known[key], "at_s": time.time()})
        self.append_failures(full)

    def append_failures(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append whole failure rows, as they are, in one commit."""
        self._append("failures", self._typed("failures", rows))
        if self._attempts is not None:
            self._attempts |= {tuple(row[name] for name in _FAILURE_KEY): row["attempts"] for row in rows}

    def _known_attempts(self) -> dict[tuple[Any, ...], int]:
        """Return how often each failure happened: while the lease is ours, nobody else counts on."""
        if self._attempts is not None:
            return self._attempts
        rows = self.failures().select(*_FAILURE_KEY, "attempts").iter_rows()
        known = {tuple(key): attempts for *key, attempts in rows}
        if self._lease is not None:
            self._attempts = known
        return known

    def commit_samples(self, frame: pl.DataFrame, expected_version: int) -> int:
        """Append a publish's rows in ONE commit and return the new version: this is the moment a generation exists.

        Raises:
            JobError: another writer has published since `expected_version` was read, be it at this very moment.
        """
        return expected_version if frame.is_empty() else self._commit("samples", frame, expected=expected_version)

    def dropped_generations(self) -> set[int]:
        """Return the generations whose files `jobs.compact` has deleted."""
        return set(self._scan("samples").filter(pl.col("state") == "dropped").select("gen").collect()["gen"])

    def _refuse_dropped(self, version: int, samples: pl.DataFrame) -> None:
        """A compaction deletes generations that nobody should read any more; whoever pinned one is told so."""
        dropped = self.dropped_generations()
        missing = sorted(dropped & set(live_samples(samples)["gen"])) if dropped else []
        if missing:
            raise UserError(
                what=f"version {version} of {self.table_uri('samples')}",
                got=f"generation {', '.join(map(str, missing))}, whose shards jobs.compact has deleted",
                expected="a version whose shards are there",
                do=f"pin a newer version (the newest is {self.samples_version()}); jobs.compact keeps old ones for "
                "keep_versions_days",
            )

    def table_uri(self, name: str) -> str:
        """Return where a table of the catalog lies."""
        return storage.join(self.uri, "catalog", name)

    def lease_token(self) -> str:
        """Return what proves to `lease.require_token` that this job holds the lease; empty while none was taken."""
        return self._lease.token if self._lease is not None else ""

    def check_lease(self) -> None:
        """Do nothing while the lease is ours, or while none was taken; called before every commit.

        Raises:
            LeaseLost: it is not ours any more.
        """
        if self._lease is not None:
            self._lease.check()

    def _create_tables(self) -> None:
        for name, schema in TABLES.items():
            keep = _RETENTION if name in APPEND_ONLY else "interval 1 day"
            configuration = {"delta.logRetentionDuration": keep, "delta.deletedFileRetentionDuration": keep}
            if name in APPEND_ONLY:
                configuration["delta.appendOnly"] = "true"
            empty = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest())
            with clean_errors(self.table_uri(name)):
                create_table(self.table_uri(name), empty.schema, configuration)

    def _table(self, name: str, version: int | None = None) -> DeltaTable:
        uri = self.table_uri(name)
        try:
            return DeltaTable(uri, version=version)
        except TableNotFoundError as error:
            raise UserError(
                what=uri,
                got="no table",
                expected="a Delta Lake table",
                do="the store is damaged: restore its catalog folder",
            ) from error
        except DeltaError as error:
            if version is None:
                raise
            newest = DeltaTable(uri).version()
            raise UserError(
                what=f"version of {uri}", got=version, expected=f"0 to {newest}", do="pin an existing version"
            ) from error

    def _scan(self, name: str, version: int | None = None) -> pl.LazyFrame:
        frame = scan_table(self._table(name, version))
        present = frame.collect_schema()
        return frame.select(
            pl.col(column) if column in present else pl.lit(None, kind).alias(column)
            for column, kind in TABLES[name].items()
        )

    def _typed(self, name: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        for row in rows:
            if set(row) != set(TABLES[name]):
                raise ValueError(f"a row of '{name}' has the columns {sorted(row)}, not {sorted(TABLES[name])}")
        return pl.DataFrame(list(rows), schema=TABLES[name])

    def _append(self, name: str, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        self._commit(name, frame)

    def _commit(
        self,
        name: str,
        frame: pl.DataFrame,
        mode: Literal["append", "overwrite"] = "append",
        expected: int | None = None,
    ) -> int:
        """Commit once, as the successor of one version, and return the new version.

        A storage that fails for the moment is tried again. Its answer may have been lost, or come late: the next try
        looks for the first one's id in the log and, being for the same version, cannot succeed beside it.

        Args:
            expected: the version to follow; None: the newest.
        """
        uri, token = self.table_uri(name), uuid.uuid4().hex

        def attempt() -> int:
            self.check_lease()
            with clean_errors(uri):
                table = self._table(name)
                base = table.version()
                for entry in table.history(_RECENT) if tried else ():
                    if entry.get(_COMMIT_ID) == token:
                        return int(entry["version"])
                if expected not in (None, base):
                    raise JobError(
                        f"another job has published to {self.uri} since version {expected} of `{name}`; run again"
                    )
                tried.append(base)
                properties = CommitProperties(custom_metadata={_COMMIT_ID: token}, max_commit_retries=0)
                rows = frame.select(_typed_columns(name))
                merge: Any = {"schema_mode": "merge"} if mode == "append" else {}
                try:
                    write_deltalake(table, rows, mode=mode, commit_properties=properties, **merge)
                except CommitFailedError as error:
                    if self._table(name).version() > base:
                        raise ConnectionError(
                            f"{uri}: another commit came first, or this one whose answer was lost"
                        ) from error
                    raise
                return base + 1

        tried: list[int] = []
        return retries.retrying(uri, attempt)


def _typed_columns(name: str) -> list[pl.Expr]:
    return [pl.col(column).cast(kind) for column, kind in TABLES[name].items()]


def _check_description(uri: str) -> None:
    try:
        found = json.loads(storage.read_bytes(uri))
        version = int(found["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            what=uri, got=str(error), expected='{"schema_version": ...}', do="the store is damaged: restore store.json"
        ) from error
    if version > SCHEMA_VERSION:
        raise UserError(
            what=f"{uri}, schema_version",
            got=version,
            expected=f"at most {SCHEMA_VERSION} (this version of the program)",
            do="update the program: a newer one wrote this store",
        )
