"""Storage URIs: one narrow layer over fsspec, so that file://, plain paths, s3:// and gs:// look the same.

Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), never from a config
file.
"""

import errno
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hvlm.errors import Reason, UserError, VideoError
from infra import scratch
from infra.listing import find_below
from infra.retries import is_transient, retrying

logger = logging.getLogger(__name__)

TEMP_MARK = ".tmp-"
_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return `(file system, path in it)` of a URI or local path.

    Raises:
        UserError: no driver for the scheme is installed.
    """
    if is_local(uri):
        return LocalFileSystem(), local_path(uri)
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        scheme = urlsplit(uri).scheme
        fix = f"pip install {_DRIVERS[scheme]}" if scheme in _DRIVERS else "check the scheme"
        raise UserError(what="storage URI", got=uri, expected="a scheme with an installed driver", do=fix) from error
    return fs, path


@contextmanager
def reachable(what: str, uri: str) -> Iterator[None]:
    """Turn what a remote storage library raises in the block into a `UserError` about `what`.

    Local errors, missing files and files that end too early pass as they are.
    """
    try:
        yield
    except (UserError, FileNotFoundError, EOFError):
        raise
    except Exception as error:  # each library has exceptions of its own: no credentials, no such host, throttled
        if is_local(uri):
            raise
        raise UserError(
            what=what,
            got=f"{uri}, which cannot be reached ({type(error).__name__}: {error})",
            expected="a storage that answers",
            do="check the URI, and the endpoint and credentials in the environment (AWS_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID, …); then run the same command again",
        ) from error


def is_local(uri: str) -> bool:
    """Return whether a URI names a local file (`file://...` or a plain path)."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """Return the absolute path of a local URI."""
    path = uri
    if uri.startswith("file://"):  # no urlsplit: it would cut a name at # or ?
        path = unquote(uri.removeprefix("file://").removeprefix("localhost"))
    return os.path.abspath(os.path.expanduser(path))


def absolute_uri(uri: str) -> str:
    """Return the URI with a relative local path made absolute (Ray workers run in other directories)."""
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def info(uri: str) -> dict[str, Any]:
    """Return fsspec's description of what stands at the URI now: name, size, type, ...

    Raises:
        OSError: it is not there or cannot be looked at.
    """
    fs, path = filesystem(uri)
    return retrying(uri, lambda: _info(fs, path))


def exists(uri: str) -> bool:
    """Return whether a file or folder stands at the URI; a storage that does not say so is an error."""
    try:
        info(uri)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_bytes(uri: str) -> bytes:
    """Return a whole small file."""
    fs, path = filesystem(uri)
    content: bytes = retrying(uri, lambda: fs.cat_file(path))
    return content


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset`.

    Raises:
        EOFError: the file ends before.
    """
    fs, path = filesystem(uri)

    def read() -> bytes:
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        return bytes(fs.cat_file(path, start=offset, end=offset + size)) if size else b""

    try:
        content = retrying(uri, read)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or is_transient(error):
            raise
        have = retrying(uri, lambda: _size(fs, path))
        if have is None or have > offset:
            raise
        content = b""  # an object store refuses a range that begins behind the end
    if len(content) != size:
        raise EOFError(f"{uri} has {len(content)} of the {size} bytes from offset {offset}")
    return content


def list_files(uri: str) -> dict[str, dict[str, Any]]:
    """Return `{path relative to uri: fsspec info}` of all files below a folder; empty if there is no such folder.

    A storage may list late what was just written: ask `exists` before you take a file for gone.
    """
    fs, path = filesystem(uri)
    root = path.rstrip("/") + "/"
    return {name.removeprefix(root): info for name, info in sorted(find_below(fs, path).items()) if name != path}


def remove(uri: str) -> None:
    """Delete one file; one that is gone already is no error."""
    fs, path = filesystem(uri)
    with suppress(FileNotFoundError):
        retrying(uri, lambda: fs.rm_file(path))


def atomic_write(uri: str, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that its final name never shows a half-written one.

    Args:
        uri: where. Parent folders are made.
        content: the bytes, or a function that writes them to a binary file (for files too big for memory).

    Raises:
        UserError: the disk is full or may not be written, a folder's name is a file's, or a remote storage cannot be
            reached; nothing half-written is left under the final name.
    """
    fs, path = filesystem(uri)
    local = isinstance(fs, LocalFileSystem)
    temp = f"{path}{TEMP_MARK}{uuid.uuid4().hex}"
    try:
        if local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        else:
            temp = scratch.make_file()
        _fill(temp, content)
        if local:
            os.replace(temp, path)
        else:
            _upload(fs, temp, path, uri)
    except OSError as error:
        explained = explain_os_error(error, uri)
        if explained is error:  # never `from` itself: whoever walks the causes would walk for ever
            raise
        raise explained from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(temp)


def explain_os_error(error: OSError, uri: str) -> Exception:
    """Return the `UserError` for a full disk, a missing permission or a file in a folder's place, else the error
    itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            what=uri,
            got="no space left on the device",
            expected="room to write",
            do="free space, then run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            what=uri, got=error.strerror, expected="permission to write", do="change the permissions or the URI"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return UserError(
            what=uri, got=f"{error.filename}: {error.strerror}", expected="a folder there", do="change the URI"
        )
    return error


def unreadable(error: OSError | EOFError, uri: str) -> VideoError:
    """Return why a source file could not be read: permanent only where reading is not allowed."""
    denied = isinstance(error, PermissionError)
    detail = error.strerror or error if isinstance(error, OSError) else error
    reason = Reason.STORAGE_PERMANENT if denied else Reason.STORAGE_TRANSIENT
    return VideoError(reason, f"cannot read {uri}: {detail}", permanent=denied)


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Give a local path of a file: its own if it is local, else a temporary copy that is removed afterwards."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        yield Path(path)
        return
    with scratch.folder() as folder:
        copy = folder / (os.path.basename(path) or "file")
        retrying(uri, lambda: _download(fs, path, copy, uri))
        yield copy


def _info(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    fs.invalidate_cache()  # an earlier listing of the folder does not know what was written since
    found: dict[str, Any] = fs.info(path)
    return found


def _size(fs: fsspec.AbstractFileSystem, path: str) -> int | None:
    """Return the size of an object, -1 if there is none, None if its storage does not say how long it is."""
    try:
        size: int | None = _info(fs, path).get("size")
    except FileNotFoundError:
        return -1
    return size


def _download(fs: fsspec.AbstractFileSystem, path: str, copy: Path, uri: str) -> None:
    fs.get_file(path, str(copy))
    size, got = _size(fs, path), copy.stat().st_size
    if size not in (got, None):
        raise ConnectionError(f"{uri}: {got} of {size} bytes arrived")


def _upload(fs: fsspec.AbstractFileSystem, temp: str, path: str, uri: str) -> None:
    wanted = os.path.getsize(temp)

    def put() -> None:
        fs.put_file(temp, path)
        size = _size(fs, path)
        if size not in (wanted, None):
            raise ConnectionError(f"{uri}: {max(0, size or 0)} of {wanted} bytes are there after the upload")

    with reachable("storage", uri):
        before = retrying(uri, lambda: _size(fs, path))
        try:
            retrying(uri, put)
        except FileNotFoundError as error:
            expected = "a bucket that exists"
            raise UserError(what="storage", got=f"{uri}: {error}", expected=expected, do="make it") from error
        except Exception as error:
            _remove_half(fs, path, uri, before)
            explained = explain_os_error(error, uri) if isinstance(error, OSError) else error
            if explained is error:
                raise
            raise explained from error


def _remove_half(fs: fsspec.AbstractFileSystem, path: str, uri: str, before: int | None) -> None:
    """Object stores show an object only when the whole upload is done, others may keep what had arrived.

    Args:
        before: size of what stood there before the upload; that object stays.
    """
    try:
        if retrying(uri, lambda: _size(fs, path)) not in (before, -1):
            retrying(uri, lambda: fs.rm_file(path))
    except Exception as error:  # the storage that just refused to write; its own error is the one to be raised
        logger.warning("%s may be half-written and could not be removed: %s", uri, error)


def _fill(path: str, content: bytes | Callable[[BinaryIO], object]) -> None:
    with open(path, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the catalog must never name a file that a power cut can still empty
