"""What stands below a folder, all of it: a folder that cannot be listed is an error, never left out.

fsspec's own walk passes over such a folder; whoever compares the listing with what was there before would take its
files for deleted.
"""

from collections.abc import Callable
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from infra.retries import retrying

Found = dict[str, dict[str, Any]]


def find_below(fs: AbstractFileSystem, path: str, may_skip: Callable[[str], bool] = lambda folder: False) -> Found:
    """Return `{path: fsspec info}` of all files below a folder; of none if there is no such folder.

    Args:
        path: in the file system.
        may_skip: tells of a folder whether it is left out if it may not be read.

    Raises:
        Exception: the file system's own, for the first folder that cannot be listed.
    """
    return _whole(lambda: _Walker(fs, may_skip).find(path, detail=True))


def find_matches(fs: AbstractFileSystem, pattern: str, may_skip: Callable[[str], bool]) -> Found:
    """Return `{path: fsspec info}` of what matches a glob; the rest as in `find_below`."""
    return _whole(lambda: _Walker(fs, may_skip).glob(pattern, detail=True))


class _CannotList(Exception):
    """Carries an error past fsspec's walk, which would swallow it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Walker(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's find and glob over another file system's ls, each call of which is tried again and must succeed."""

    cachable = False

    def __init__(self, fs: AbstractFileSystem, may_skip: Callable[[str], bool]) -> None:
        super().__init__()
        self._fs, self._may_skip = fs, may_skip
        fs.invalidate_cache()
        base, name = (AsyncFileSystem, "_find") if isinstance(fs, AsyncFileSystem) else (AbstractFileSystem, "find")
        self._walks = getattr(type(fs), name) is getattr(base, name)

    def _strip_protocol(self, path: str) -> str:
        return str(self._fs._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """List one folder.

        Raises:
            OSError: it is gone or may be left out. _CannotList: any other error.
        """
        try:
            return retrying(path, lambda: self._fs.ls(path, detail=detail, **options))
        except FileNotFoundError:
            raise
        except Exception as error:  # each storage library has exceptions of its own
            if isinstance(error, PermissionError) and self._may_skip(path):
                raise
            raise _CannotList(error) from error

    def info(self, path: str, **options: Any) -> Any:
        """Return what the file system says of a path."""
        return retrying(path, lambda: self._fs.info(path, **options))

    def find(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        """Return all files below a path: of an object store from one listing, else folder by folder."""
        if self._walks or maxdepth is not None:
            return super().find(path, maxdepth=maxdepth, **options)
        return retrying(path, lambda: self._fs.find(path, **options))


def _whole(search: Callable[[], Found]) -> Found:
    try:
        return search()
    except _CannotList as stopped:
        error = stopped.error
    raise error
