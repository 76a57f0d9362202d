"""Charades and Charades-Ego: class names, the official table of videos, and the table of clips to fine-tune on.

Official table: `id, ..., actions, length, ...`, comma separated; `actions` is "c092 11.90 21.20;c147 0.00 12.60". Clips
to train on: `id, cls, t_start, t_end, narration`, separated by TABs. Class names: "c000 Holding some clothes", one a
line.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hvlm.data.activitynet import SpanS, fit_span
from hvlm.data.readers.parsing import number, read_table, refuse, text_of
from hvlm.data.readers.rows import Problem, Rows

_CLASS = re.compile(r"c?(\d{1,4})")


class CharadesAction(NamedTuple):
    """An action of a video: `label` is the class index, `span_s` half-open seconds."""

    label: int
    span_s: SpanS


class CharadesVideo(NamedTuple):
    """A line of the official table.

    Attributes:
        video_id: its id.
        labels: all classes that the line names, sorted. The official score counts these, spans do not matter to it.
        actions: the actions whose span can be, in the order of the file.
        duration_s: length of the video; None if the table has none.
    """

    video_id: str
    labels: tuple[int, ...]
    actions: tuple[CharadesAction, ...]
    duration_s: float | None


class CharadesClip(NamedTuple):
    """A line of the training table: one action and its text."""

    video_id: str
    label: int
    span_s: SpanS
    text: str


def read_charades_classes(lines: Iterable[str], origin: str = "Charades_v1_classes.txt") -> tuple[str, ...]:
    """Return the class names without their codes; place = class index.

    Raises:
        UserError: a line has no code and name, or the codes are not c000, c001, ... each once.
    """
    names: dict[int, str] = {}
    for index, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        code, _, name = line.strip().partition(" ")
        found = _CLASS.fullmatch(code)
        if found is None or not name.strip() or int(found[1]) in names:
            refuse(
                f"{origin}, line {index}",
                repr(line.strip()),
                'a code that is new and a name: "c000 Holding some clothes"',
            )
        names[int(found[1])] = name.strip()
    if sorted(names) != list(range(len(names))) or not names:
        refuse(
            origin, f"{len(names)} codes up to {max(names, default=None)}", "the codes c000, c001, ... without a gap"
        )
    return tuple(names[index] for index in range(len(names)))


def read_charades(
    lines: Iterable[str], class_names: Sequence[str], origin: str = "CharadesEgo_v1_test.csv"
) -> Rows[CharadesVideo]:
    """Return the videos of an official table, those without actions too; spans that cannot be are listed.

    An action whose span cannot be keeps its label: it counts in the score, and only localisation is without it.

    Raises:
        UserError: a column is missing, a cell is not what the format says, a class is unknown, a video stands twice.
    """
    read: Rows[CharadesVideo] = Rows([], [])
    seen: set[str] = set()
    for place, cells in read_table(lines, origin, ("id", "actions")):
        video_id = text_of(cells["id"], f"{place}, id")
        if video_id in seen:
            refuse(place, f"video '{video_id}' again", "each video once")
        seen.add(video_id)
        length = cells.get("length", "").strip()
        duration_s = number(length, f"{place}, length") if length else None
        labels: set[int] = set()
        actions: list[CharadesAction] = []
        for item in filter(None, (part.strip() for part in cells["actions"].split(";"))):
            label, start_s, end_s = _action(item, f"{place}, actions", class_names)
            labels.add(label)
            span_s, problem = fit_span(start_s, end_s, duration_s)
            if problem is not None:
                read.problems.append(Problem(place, video_id, f"{class_names[label]}: {problem}"))
            if span_s is not None:
                actions.append(CharadesAction(label, span_s))
        read.rows.append(CharadesVideo(video_id, tuple(sorted(labels)), tuple(actions), duration_s))
    return read


def read_charades_clips(
    lines: Iterable[str], class_names: Sequence[str], origin: str = "charades_train.tsv"
) -> Rows[CharadesClip]:
    """Return the clips of a training table; spans that cannot be are left out and listed.

    Raises:
        UserError: a column is missing, a cell is not what the format says, or a class is unknown.
    """
    read: Rows[CharadesClip] = Rows([], [])
    for place, cells in read_table(lines, origin, ("id", "cls", "t_start", "t_end", "narration"), delimiter="\t"):
        video_id = text_of(cells["id"], f"{place}, id")
        label = _label(cells["cls"].strip(), f"{place}, cls", class_names)
        text = text_of(cells["narration"], f"{place}, narration")
        start_s, end_s = (number(cells[name], f"{place}, {name}") for name in ("t_start", "t_end"))
        span_s, problem = fit_span(start_s, end_s, None)
        if span_s is None:
            read.problems.append(Problem(place, video_id, f"{class_names[label]}: {problem}"))
        else:
            read.rows.append(CharadesClip(video_id, label, span_s, text))
    return read


def _action(item: str, what: str, class_names: Sequence[str]) -> tuple[int, float, float]:
    parts = item.split()
    if len(parts) != 3:
        refuse(what, repr(item), 'class, start and end such as "c092 11.90 21.20"')
    return _label(parts[0], what, class_names), number(parts[1], what), number(parts[2], what)


def _label(code: str, what: str, class_names: Sequence[str]) -> int:
    found = _CLASS.fullmatch(code)
    if found is None or int(found[1]) >= len(class_names):
        refuse(what, repr(code), f"a class of c000 to c{len(class_names) - 1:03d}")
    return int(found[1])
