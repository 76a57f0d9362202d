"""Temporary files and folders whose names tell whose they are, so that those of killed processes can be removed.

A worker that is killed by SIGKILL cleans nothing up: copies of remote videos would fill the disk of a node. So the
first one that a process makes looks for those of processes that are gone.
"""

import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

# The folder may be shared between machines and containers: whether a pid lives is known in its own one alone.
_PLACE = f"hvlm-{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
_NAME = re.compile(rf"{re.escape(_PLACE)}-(?P<pid>\d+)-(?P<start>\d+)-.*")


@contextmanager
def folder() -> Iterator[Path]:
    """Give a new folder that the end of the `with` block removes, or, if the process is killed, a later process."""
    path = Path(tempfile.mkdtemp(prefix=_prefix(os.getpid())))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make_file() -> str:
    """Return the path of a new empty file; whoever asks removes it."""
    handle, path = tempfile.mkstemp(prefix=_prefix(os.getpid()))
    os.close(handle)
    return path


@cache
def _prefix(pid: int) -> str:
    """Return how this process's names begin; the first time, also in a forked child, the dead are swept."""
    sweep(tempfile.gettempdir())
    return f"{_PLACE}-{pid}-{_start_of(pid)}-"


def sweep(place: str) -> None:
    """Remove what processes of this user that are gone have left in a folder of temporary files."""
    for path in Path(place).iterdir():
        name = _NAME.fullmatch(path.name)
        if name is None or _start_of(int(name["pid"])) == int(name["start"]):
            continue
        with suppress(FileNotFoundError):  # another process sweeps too
            if path.lstat().st_uid == os.getuid():
                logger.info("removing %s, which a killed process left", path)
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (pids are used again); None: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])  # field 22; the name in brackets may hold spaces
