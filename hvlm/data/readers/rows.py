"""What every annotation reader returns: rows that can be used, and a list of those that cannot."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar


class Problem(NamedTuple):
    """A row, or a part of one, that was cut or left out.

    Attributes:
        where: the file and the line or entry.
        video_id: whose row it is.
        message: what was wrong and what was done.
    """

    where: str
    video_id: str
    message: str


class OfVideo(Protocol):
    """A row that belongs to one video."""

    @property
    def video_id(self) -> str:
        """The id as it stands in the file."""


Row = TypeVar("Row")
VideoRow = TypeVar("VideoRow", bound=OfVideo)


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """A whole file: its usable rows in the order of the file, and its problems."""

    rows: list[Row]
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class Stored(Generic[VideoRow]):
    """Rows whose video is in the store, and how many rows each absent video has, sorted by id."""

    rows: list[VideoRow]
    absent: dict[str, int]


def in_store(rows: Iterable[VideoRow], video_ids: Collection[str]) -> Stored[VideoRow]:
    """Return the rows of the stored videos and a list of the videos that the store lacks."""
    stored = frozenset(video_ids)
    kept: list[VideoRow] = []
    absent: Counter[str] = Counter()
    for row in rows:
        if row.video_id in stored:
            kept.append(row)
        else:
            absent[row.video_id] += 1
    return Stored(kept, dict(sorted(absent.items())))
