"""What every annotation reader returns: rows that can be used, and a list of those that cannot."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from hvlm.data.activitynet import ROUNDING_S

SpanS = tuple[float, float]


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


def fit_span(start_s: float, end_s: float, duration_s: float | None) -> tuple[SpanS | None, str | None]:
    """Return `(span or None, problem or None)` by the rule of the ActivityNet reader.

    A span that is negative, empty, reversed or starts beyond the duration is left out. One that ends beyond it is cut
    to it; that is a problem when it is more than a rounding (`ROUNDING_S`).

    Args:
        start_s: start in seconds.
        end_s: end in seconds.
        duration_s: what the file says of the video's length; None if it says nothing.
    """
    name = f"span [{start_s:g}, {end_s:g}] s"
    if start_s < 0 or end_s <= start_s:
        return None, f"{name} is impossible: left out"
    if duration_s is None or end_s <= duration_s:
        return (start_s, end_s), None
    if start_s >= duration_s:
        return None, f"{name} starts beyond the duration of {duration_s:g} s: left out"
    problem = f"{name} ends beyond the duration of {duration_s:g} s: cut"
    return (start_s, duration_s), problem if end_s > duration_s + ROUNDING_S else None
