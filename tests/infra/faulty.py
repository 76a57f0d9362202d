"""A storage that fails by plan: `faulty:///folder/file` is the local `/folder/file` behind a file system with faults.

The plan lies in a file beside the data, so that all processes of a job (the driver and Ray's workers) share one plan
and one count. Importing this module makes fsspec know the scheme; `Importing` makes a Ray worker import it.
"""

import errno
import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
from deltalake import DeltaTable
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem

from infra import retries
from pipelines.store import lease

PLAN = "faults.json"
LOCAL = LocalFileSystem()


class ClientError(Exception):
    """As botocore's: no OSError; what it means stands in a dictionary."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class NoCredentialsError(Exception):
    """As botocore's: neither number nor status."""


ERRORS: dict[str, Callable[[], Exception]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "timeout": FSTimeoutError,
    "input/output": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "throttled": lambda: ClientError("SlowDown", 503),
    "server": lambda: ClientError("InternalError", 500),
    "denied": lambda: PermissionError("Access Denied"),
    "bad request": lambda: ClientError("AuthorizationHeaderMalformed", 400),
    "no credentials": lambda: NoCredentialsError("Unable to locate credentials"),
    "full": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}
TRANSIENT = ("reset", "timeout", "input/output", "throttled", "server")
PERMANENT = ("denied", "bad request", "no credentials", "full")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong.

    Args:
        kind: of `ERRORS`; "torn" (put_file: half of it arrives, then an error), "short" (put_file, get_file: half of
            it arrives, no error) or "late" (ls: what matches is not listed yet; info: it is not there yet).
        call: the method: info, ls, get_file, put_file, cat_file, rm_file.
        after: so many matching calls go well first.
        times: so many fail then.
        chance: of each of those to fail, by the plan's seed.
        where: a part of the path, "" for any.
    """

    kind: str
    call: str
    after: int = 0
    times: int = 1
    chance: float = 1.0
    where: str = ""


ALWAYS = 10**9


def plan(root: Path, *faults: Fault, seed: int = 0) -> str:
    """Make the faults of everything below a folder and return the folder's URI; no faults: all goes well."""
    state = {"faults": [asdict(fault) for fault in faults], "seen": [0] * len(faults), "hits": [0] * len(faults)}
    root.mkdir(parents=True, exist_ok=True)
    (root / PLAN).write_text(json.dumps(state | {"seed": seed, "calls": {}}))
    return f"faulty://{root}"


def hits(root: Path) -> list[int]:
    """How often each fault of the plan struck."""
    found: list[int] = json.loads((root / PLAN).read_text())["hits"]
    return found


def calls(root: Path, call: str) -> int:
    """How often a method was called below the folder since the plan was made."""
    return int(json.loads((root / PLAN).read_text())["calls"].get(call, 0))


class FaultyFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The local file system as a remote one: files are fetched and put, nothing is renamed."""

    protocol = "faulty"
    root_marker = "/"
    cachable = False

    def info(self, path: str, **options: Any) -> Any:
        if self._strike("info", path) == "late":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return LOCAL.info(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self._strike("ls", path)
        shown = [entry for entry in LOCAL.ls(self._strip_protocol(path), detail=True) if self._shown(entry)]
        return shown if detail else [entry["name"] for entry in shown]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self._strike("cat_file", path)
        return bytes(LOCAL.cat_file(self._strip_protocol(path), start=start, end=end))

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        kind = self._strike("get_file", rpath)
        shutil.copyfile(self._strip_protocol(rpath), lpath)
        if kind == "short":
            _halve(lpath)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        kind = self._strike("put_file", rpath)
        target = self._strip_protocol(rpath)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(lpath, target)
        if kind in ("torn", "short"):
            _halve(target)
        if kind == "torn":
            raise ERRORS["reset"]()

    def rm_file(self, path: str) -> None:
        self._strike("rm_file", path)
        os.remove(self._strip_protocol(path))

    def _shown(self, entry: dict[str, Any]) -> bool:
        name = os.path.basename(entry["name"])
        return name != PLAN and self._strike("ls", entry["name"], late=True) != "late"

    def _strike(self, call: str, path: str, late: bool = False) -> str | None:
        """Count the call; raise the planned error, or return the planned kind of any other fault.

        Args:
            late: the path is an entry of a listing: that is no call and has no other fault than to be late.
        """
        path = self._strip_protocol(path)
        with _state(path) as state:
            if not late:
                state["calls"][call] = state["calls"].get(call, 0) + 1
            for number, values in enumerate(state["faults"]):
                fault = Fault(**values)
                if fault.call != call or fault.where not in path or (call == "ls" and late != (fault.kind == "late")):
                    continue
                seen = state["seen"][number] - fault.after
                state["seen"][number] += 1
                drawn = random.Random(f"{state['seed']} {number} {seen}").random()
                if 0 <= seen < fault.times and drawn < fault.chance:
                    state["hits"][number] += 1
                    if fault.kind in ERRORS:
                        raise ERRORS[fault.kind]()
                    return fault.kind
        return None


class Importing:
    """A function that a Ray worker calls after it has imported this module, because the pickle names it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        prepare_worker()
        return self.function(*arguments)


def prepare_worker() -> None:
    """Let this process wait hundredths of seconds before it tries again, and read the lease table on sound storage."""
    retries.FIRST_WAIT_S = 0.01
    lease.DeltaTable = _sound_table  # type: ignore[assignment,misc]


def _sound_table(uri: str) -> DeltaTable:
    return DeltaTable(uri.removeprefix("faulty://"))


@contextmanager
def _state(path: str) -> Iterator[dict[str, Any]]:
    """Give the plan above a path; what the block changes is written back, also when it raises."""
    folder = next((folder for folder in [Path(path), *Path(path).parents] if (folder / PLAN).is_file()), None)
    if folder is None:
        yield {"calls": {}, "faults": []}
        return
    with open(folder / PLAN, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = json.load(file)
        try:
            yield state
        finally:
            file.seek(0)
            json.dump(state, file)
            file.truncate()


def _halve(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
