"""One writer per store: a lease, a row of the Delta Lake table `catalog/lease`.

Taking, renewing and giving back are conditional commits: each is written as the successor of the version that was read
and fails if anybody else wrote it first, so of two jobs one wins on any storage that Delta Lake can write to. The
holder renews the lease from a thread. A lease that is not renewed in time may be taken over, at once if its holder ran
on this machine and is gone; the old holder, should it wake up, finds out before its next commit and stops.

Assumes clocks that agree within `GRACE_S`.
"""

import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import polars as pl
import psutil
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from hvlm.errors import JobError
from infra import storage
from pipelines.store.tables import create_table, scan_table

logger = logging.getLogger(__name__)

LEASE: dict[str, pl.DataType] = {
    "token": pl.String(),  # of one taking; empty: nobody holds the lease
    "job": pl.String(),
    "host": pl.String(),  # its name, for people
    "machine": pl.String(),  # this boot of this machine or container: where pid means something
    "pid": pl.Int64(),
    "process_start_s": pl.Float64(),  # with pid: this process and no later one of the same number
    "since_s": pl.Float64(),  # Unix times
    "renewed_s": pl.Float64(),
    "expires_s": pl.Float64(),
}
LEASE_S = 120.0
GRACE_S = 10.0
_KEEP_HOURS = 24  # old rows: longer than anybody reads them
_RENEWALS = 4  # tries within one lease time: a storage that fails for a while costs nothing


class StoreIsHeld(JobError):
    """Another job writes into the store."""


class LeaseLost(JobError):
    """The lease was taken over or could not be renewed in time: nothing more may be committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A row of the lease table."""

    token: str
    job: str
    host: str
    machine: str
    pid: int
    process_start_s: float
    since_s: float
    renewed_s: float
    expires_s: float

    def is_gone(self, now_s: float) -> bool:
        """Return whether the lease may be taken over."""
        if not self.token or now_s > self.expires_s + GRACE_S:
            return True
        return self.machine == _machine() and not _runs(self.pid, self.process_start_s)


class Lease:
    """The right to write into one store, held inside a `with` block.

    Args:
        store_uri: of the store; its catalog exists.
        job: what the other job is told, e.g. "jobs.extract".
        lease_s: how long it stays valid without being renewed; None: `LEASE_S`.

    Raises (on entering):
        StoreIsHeld: another job holds it; the message says which.
    """

    def __init__(self, store_uri: str, job: str, lease_s: float | None = None) -> None:
        self._store_uri, self._uri = store_uri, storage.join(store_uri, "catalog", "lease")
        self._job, self._lease_s = job, lease_s or LEASE_S
        self._token = uuid.uuid4().hex
        self._table: DeltaTable | None = None
        self._holder: Holder | None = None
        self._lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def token(self) -> str:
        """The name of this taking; workers prove by it that their job still holds the lease."""
        return self._token

    def __enter__(self) -> "Lease":
        self._table = _open_table(self._uri)
        held = _read(self._table)
        now = time.time()
        if held is not None and not held.is_gone(now):
            raise StoreIsHeld(_held_message(self._store_uri, held, now))
        if held is not None and held.token:
            logger.warning("taking over the lease of %s (%s, pid %d): it is gone", held.job, held.host, held.pid)
        mine = Holder(
            token=self._token,
            job=self._job,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_start_s=_start_of(os.getpid()),
            since_s=now,
            renewed_s=now,
            expires_s=now + self._lease_s,
        )
        if not self._write(mine):
            winner = _read(_open_table(self._uri))
            raise StoreIsHeld(_held_message(self._store_uri, winner or mine, now))
        _forget_old_rows(self._table)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._holder is not None and not self._lost:
            now = time.time()
            try:
                self._write(_with(self._holder, token="", renewed_s=now, expires_s=now))
            except (OSError, DeltaError) as failure:  # the work is done; the lease ends by itself
                logger.warning("the lease could not be given back, it expires soon: %s", failure)

    def check(self) -> None:
        """Do nothing while the lease is ours; called before every commit.

        Raises:
            LeaseLost: it is not any more.
        """
        holder = self._holder
        if not self._lost and (holder is None or time.time() > holder.expires_s):
            self._lost = f"it was not renewed for {self._lease_s:g} s"
        if self._lost:
            raise LeaseLost(
                f"the lease on {self._store_uri} is lost ({self._lost}); nothing more was committed; what was staged "
                "stays: run the same command again"
            )

    def _keep(self) -> None:
        while not self._stop.wait(self._lease_s / _RENEWALS):
            holder = self._holder
            if holder is None or self._lost:
                return
            now = time.time()
            if now > holder.expires_s:
                self._lost = f"it was not renewed for {self._lease_s:g} s"
                return
            try:
                if not self._write(_with(holder, renewed_s=now, expires_s=now + self._lease_s)):
                    self._read_again()
            except (OSError, DeltaError) as error:  # the storage fails for the moment
                logger.warning("the lease could not be renewed yet: %s", error)

    def _read_again(self) -> None:
        """Find out why a commit failed: somebody came before, or the storage failed (perhaps after it was written)."""
        self._table = _open_table(self._uri)
        found = _read(self._table)
        if found is None or found.token != self._token:
            self._lost = "another job has taken it over"

    def _write(self, holder: Holder) -> bool:
        """Commit a row as the successor of the version that was read last; return whether nobody came before."""
        if self._table is None:
            return False
        try:
            write_deltalake(
                self._table,
                pl.DataFrame([asdict(holder)], schema=LEASE),
                mode="overwrite",
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except CommitFailedError:
            return False
        self._holder = holder
        return True


def require_token(store_uri: str, token: str) -> None:
    """Do nothing while the job that took the lease under this token has it; for its workers, which have no `Lease`.

    Raises:
        LeaseLost: the job has given it back, or another one has taken it over.
    """
    found = _read(DeltaTable(storage.join(store_uri, "catalog", "lease")))
    if found is None or found.token != token:
        raise LeaseLost(
            f"the job of this worker holds the lease on {store_uri} no more; the worker's shard is discarded"
        )


def _with(holder: Holder, **changes: float | str) -> Holder:
    return Holder(**{**asdict(holder), **changes})


def _open_table(uri: str) -> DeltaTable:
    if not DeltaTable.is_deltatable(uri):
        empty = pl.DataFrame(schema=LEASE).to_arrow(compat_level=pl.CompatLevel.oldest())
        # Renewed every half minute for years: old versions tell nothing and are dropped.
        keep = {"delta.logRetentionDuration": "interval 1 day", "delta.deletedFileRetentionDuration": "interval 1 day"}
        create_table(uri, empty.schema, keep)
    return DeltaTable(uri)


def _forget_old_rows(table: DeltaTable) -> None:
    """Each renewal leaves a file behind. Only the holder may delete them: it makes versions, which would cost another's
    renewal the race.
    """
    try:
        table.vacuum(retention_hours=_KEEP_HOURS, dry_run=False, enforce_retention_duration=False, full=True)
    except (OSError, DeltaError) as error:  # the next holder does it
        logger.warning("old files of the lease could not be deleted: %s", error)


def _read(table: DeltaTable) -> Holder | None:
    rows = scan_table(table).select(list(LEASE)).collect().to_dicts()
    return Holder(**rows[0]) if rows else None


def _held_message(store_uri: str, held: Holder, now_s: float) -> str:
    return (
        f"{store_uri} is being written by {held.job} on {held.host} (pid {held.pid}), "
        f"for {now_s - held.since_s:.0f} s, last sign of life {now_s - held.renewed_s:.0f} s ago; "
        f"wait for it or stop it; if it is dead, this works {max(0.0, held.expires_s + GRACE_S - now_s):.0f} s from now"
    )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: no lease is ever known to be of this machine, it has to expire
        return uuid.uuid4().hex


def _start_of(pid: int) -> float:
    return psutil.Process(pid).create_time()


def _runs(pid: int, start_s: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - start_s) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
