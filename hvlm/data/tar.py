"""Deterministic tars: the same members give the same bytes on any machine, at any time, for any user."""

import hashlib
import io
import tarfile
from typing import Protocol

_BLOCK_BYTES = 512
# Two zero blocks end a tar. `tarfile` would fill up to 10,240 bytes.
_END = bytes(2 * _BLOCK_BYTES)


class ByteSink(Protocol):
    """Anything with `write(bytes)`."""

    def write(self, data: bytes, /) -> object: ...


class HashingSink:
    """Passes bytes on and hashes them: the whole, and the part since the last `take_part`."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self._whole, self._part = hashlib.sha256(), hashlib.sha256()

    def write(self, data: bytes, /) -> object:
        """Hash and pass on."""
        self._whole.update(data)
        self._part.update(data)
        return self._sink.write(data)

    def take_part(self) -> str:
        """Return the sha256 of what came since the last call."""
        digest, self._part = self._part.hexdigest(), hashlib.sha256()
        return digest

    def whole(self) -> str:
        """Return the sha256 of everything so far."""
        return self._whole.hexdigest()


class TarWriter:
    """Writes members one after another; each add returns the byte range that holds the member.

    mtime, uid and gid are 0, owner names are empty and the mode is 0644. Names over 100 bytes use PAX headers, which
    are part of the member's byte range.

    Args:
        sink: receives the bytes in order; it is not closed.
    """

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self._offset = 0

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append one file and return `(offset, size)`: the range of its header, data and padding."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        header = info.tobuf(tarfile.PAX_FORMAT)
        padding = bytes(-len(data) % _BLOCK_BYTES)
        for part in (header, data, padding):
            self._sink.write(part)
        offset, size = self._offset, len(header) + len(data) + len(padding)
        self._offset += size
        return offset, size

    def finish(self) -> int:
        """Write the end mark and return the size of the tar in bytes."""
        self._sink.write(_END)
        self._offset += len(_END)
        return self._offset


def read_members(data: bytes) -> dict[str, bytes]:
    """Return `{name: content}` of the members in a byte range that `TarWriter.add` named (or several ranges in a row).

    Raises:
        tarfile.TarError: the range is no tar, or is cut short.
    """
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            file = archive.extractfile(info)
            content = file.read() if file else b""
            if len(content) != info.size:
                raise tarfile.ReadError(f"member {info.name} has {len(content)} of {info.size} bytes")
            members[info.name] = content
    return members
