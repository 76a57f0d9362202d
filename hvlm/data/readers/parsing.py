"""Cells, tables and JSON of annotation files. Whatever is not as the format says is refused with its place named."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from hvlm.errors import UserError


def read_table(
    lines: Iterable[str], origin: str, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `(place, {column: cell})` for each line below the header; further columns are carried along.

    Args:
        lines: an open text file (`newline=""`), or the text's lines with their ends.
        origin: names the file in errors and places.
        columns: what the header must have, in any order.
        delimiter: one character.

    Raises:
        UserError: no header, a column missing or twice, a line of another length, broken quotes.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        missing = [name for name in columns if header.count(name) != 1]
        if missing:
            refuse(f"{origin}, header", header, f"each of the columns {', '.join(missing)} once")
        for cells in reader:
            if not cells:
                continue
            place = f"{origin}, line {reader.line_num}"
            if len(cells) != len(header):
                refuse(place, f"{len(cells)} cells", f"{len(header)} as in the header")
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            what=f"{origin}, line {reader.line_num}",
            got=str(error),
            expected=f"cells separated by {delimiter!r}, quoted as csv does",
            do="correct the annotation file",
        ) from error


def read_json_mapping(text: str, origin: str) -> dict[str, Any]:
    """Return the object in a JSON text.

    Raises:
        UserError: not JSON, no object at the top, or a key twice in one object (of which json would keep the last).
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
            refuse(origin, f"the key '{repeated}' more than once in one object", "each key once")
        return entries

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(what=origin, got=str(error), expected="valid JSON", do="mend the file there") from error
    if not isinstance(content, dict):
        refuse(origin, type(content).__name__, "a JSON object")
    return content


def number(value: object, what: str) -> float:
    """Return a finite number from a cell or a JSON value.

    Raises:
        UserError: anything else.
    """
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if math.isfinite(found):
            return found
    refuse(what, repr(value), "a finite number")


def whole_number(value: object, what: str) -> int:
    """Return an integer of at least 0 from a cell or a JSON value.

    Raises:
        UserError: anything else.
    """
    found = number(value, what)
    if found < 0 or found != int(found):
        refuse(what, repr(value), "a whole number of at least 0")
    return int(found)


def id_list(value: object, what: str) -> tuple[int, ...]:
    """Return the ids of a list, or of a text that holds one: `[192, 115, 12]`, `[]`, or nothing at all.

    Raises:
        UserError: anything else. The text is parsed as JSON and never evaluated.
    """
    ids: object = value
    if isinstance(value, str):
        try:
            ids = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            ids = None
    if not isinstance(ids, list) or not all(type(item) is int and item >= 0 for item in ids):
        refuse(what, repr(value), "a list of whole numbers such as [192, 115, 12]")
    return tuple(ids)


def text_of(value: object, what: str) -> str:
    """Return a text that is not blank, without the blanks around it.

    Raises:
        UserError: anything else.
    """
    if not isinstance(value, str) or not value.strip():
        refuse(what, repr(value), "a text")
    return value.strip()


def refuse(what: str, got: object, expected: str) -> NoReturn:
    """Raise the error of an annotation file that is not as its format says."""
    raise UserError(what=what, got=got, expected=expected, do="correct the annotation file")
