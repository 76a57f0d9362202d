"""Sample keys: a reversible map from any video id to `[A-Za-z0-9_-]+`.

webdataset splits a member name at its first dot, so a key may hold no dot; shells, URLs and object stores dislike the
rest. An id that is safe already is its own key. Any other becomes `x--` + its UTF-8 bytes, with every byte outside
`[A-Za-z0-9-]` written `_` + two hex digits: `a b.mp4` -> `x--a_20b_2emp4`. An id that starts with `x--` is escaped too,
so two ids never share a key.
"""

import re

PREFIX = "x--"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9-]|_[0-9a-f]{2})+")
_ESCAPE = re.compile(rb"_([0-9a-f]{2})")


def video_key(video_id: str) -> str:
    """Return the sample key of a video id.

    Raises:
        ValueError: the id is empty, or not expressible in UTF-8 (a file name with broken bytes).
    """
    if not video_id:
        raise ValueError("a video id may not be empty")
    if _SAFE.fullmatch(video_id) and not video_id.startswith(PREFIX):
        return video_id
    escaped = "".join(chr(byte) if byte in _PLAIN_BYTES else f"_{byte:02x}" for byte in video_id.encode("utf-8"))
    return PREFIX + escaped


def video_id_of(key: str) -> str:
    """Return the video id of a sample key.

    Raises:
        ValueError: `key` is not one that `video_key` makes.
    """
    if not key.startswith(PREFIX):
        if not _SAFE.fullmatch(key):
            raise ValueError(f"not a sample key: {key!r}")
        return key
    escaped = key[len(PREFIX) :]
    if not _ESCAPED.fullmatch(escaped):
        raise ValueError(f"not a sample key: {key!r}")
    video_id = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), escaped.encode("ascii")).decode("utf-8")
    if video_key(video_id) != key:
        raise ValueError(f"not a sample key: {key!r}")
    return video_id
