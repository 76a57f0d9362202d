"""The files below a folder, or those that match a glob. What cannot be listed is an error, never an empty folder."""

import glob
import os
import stat
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from hvlm.errors import UserError
from infra import storage

Found = dict[str, dict[str, Any] | None]


class _NotingFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's walk passes over a folder that it may not list; this notes it."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: list[str] = []

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        """List one folder.

        Raises:
            OSError: it cannot be listed; a missing permission is noted first.
        """
        try:
            return super().ls(path, detail=detail, **options)
        except PermissionError:
            self.unreadable.append(path)
            raise


def find_files(uri: str) -> tuple[str, Found]:
    """Return `(root, {path: fsspec info})` of all files below a folder, or of those that match a glob.

    A link to a file counts as the file that it leads to; one that leads nowhere has the info None. Linked folders below
    the root are not entered (they may lead back up); give a glob, or the linked folder itself, to read one.

    Raises:
        UserError: no such folder, or a folder (but for hidden ones) that may not be listed.
    """
    fs, path = (_NotingFileSystem(), storage.local_path(uri)) if storage.is_local(uri) else storage.filesystem(uri)
    try:
        fs.invalidate_cache()
        if glob.has_magic(path) and not fs.exists(path):  # a folder may be called "talks [2024]"
            root = path[: path.index(next(character for character in path if character in "*?["))].rpartition("/")[0]
            found = fs.glob(path, detail=True)
        else:
            root = path
            _check_folder(uri, fs, path)
            found = fs.find(path, detail=True)
    except OSError as error:
        got = f"{uri} without permission" if isinstance(error, PermissionError) else f"{uri} ({error})"
        raise _unlistable(got) from error
    if isinstance(fs, _NotingFileSystem):
        refused = [folder for folder in fs.unreadable if not is_hidden(folder, root)]
        if refused:
            raise _unlistable(f"{refused[0]} without permission")
        found = {name: _follow(info) for name, info in found.items()}
    return root, found


def is_hidden(path: str, root: str) -> bool:
    """Return whether a part of the path below the root starts with a dot."""
    return "/." in "/" + path.removeprefix(root)


def _follow(info: dict[str, Any]) -> dict[str, Any] | None:
    """fsspec describes a link found in a folder by itself ("other"); what counts is the file that it leads to."""
    if not info.get("islink"):
        return info
    try:
        target = os.stat(info["name"])
    except OSError:
        return None
    kind = "file" if stat.S_ISREG(target.st_mode) else "directory" if stat.S_ISDIR(target.st_mode) else "other"
    return info | {"type": kind, "size": target.st_size, "mtime": target.st_mtime}


def _check_folder(uri: str, fs: Any, path: str) -> None:
    if not fs.exists(path):
        raise UserError(what="source.uri", got=uri, expected="an existing folder, glob or list", do="check the path")
    if storage.is_local(uri) and not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
        raise _unlistable(f"{uri} without permission")


def _unlistable(got: str) -> UserError:
    do = "change its permissions, or leave it out of the source (else its videos would count as deleted)"
    return UserError(what="source.uri", got=got, expected="a readable folder", do=do)
