"""The files below a folder, or those that match a glob. What cannot be listed is an error, never an empty folder."""

import glob
import os
import stat
from typing import Any

from hvlm.errors import UserError
from infra import storage
from infra.listing import find_below, find_matches

Found = dict[str, dict[str, Any] | None]


def find_files(uri: str) -> tuple[str, Found]:
    """Return `(root, {path: fsspec info})` of all files below a folder, or of those that match a glob.

    A link to a file counts as the file that it leads to; one that leads nowhere has the info None. Linked folders below
    the root are not entered (they may lead back up); give a glob, or the linked folder itself, to read one.

    Raises:
        UserError: no such folder, or a folder (but for hidden ones) that may not be listed.
    """
    fs, path = storage.filesystem(uri)
    root = path

    def may_skip(folder: str) -> bool:
        return is_hidden(folder, root)

    try:
        if glob.has_magic(path) and not storage.exists(uri):  # a folder may be called "talks [2024]"
            root = path[: path.index(next(character for character in path if character in "*?["))].rpartition("/")[0]
            found = find_matches(fs, path, may_skip)
        else:
            _check_folder(uri, path)
            found = find_below(fs, path, may_skip)
    except OSError as error:
        closed = isinstance(error, PermissionError)
        raise _unlistable(f"{error.filename or uri} without permission" if closed else f"{uri} ({error})") from error
    local = storage.is_local(uri)
    return root, {name: _follow(info) if local else info for name, info in found.items()}


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


def _check_folder(uri: str, path: str) -> None:
    if not storage.exists(uri):
        raise UserError(what="source.uri", got=uri, expected="an existing folder, glob or list", do="check the path")
    if storage.is_local(uri) and not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
        raise _unlistable(f"{uri} without permission")


def _unlistable(got: str) -> UserError:
    do = "change its permissions, or leave it out of the source (else its videos would count as deleted)"
    return UserError(what="source.uri", got=got, expected="a readable folder", do=do)
