"""EgoClip and EgoSummary tables: one line for each clip and its narration, or each segment and its summary.

The columns (`COLUMNS`) are separated by TABs. In the summaries' table `clip_start` and `clip_end` bound the summarised
segment and `clip_text` is the summary. The tags are lists of ids in text: "[192, 115, 12]".
"""

import csv
import io
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hvlm.data.activitynet import SpanS, fit_span
from hvlm.data.readers.parsing import id_list, number, read_table, refuse, text_of, whole_number
from hvlm.data.readers.rows import Problem, Rows

COLUMNS = (
    "clip_idx",
    "video_uid",
    "video_dur",
    "narration_source",
    "narration_ind",
    "narration_time",
    "clip_start",
    "clip_end",
    "clip_text",
    "tag_verb",
    "tag_noun",
)
_NOTHING = ("", "nan", "none", "null")


class ClipRow(NamedTuple):
    """A span of a video and its text; None or empty where the file says nothing.

    Attributes:
        video_id: the source video.
        span_s: half-open seconds.
        text: narration or summary.
        verbs: verb ids.
        nouns: noun ids.
        annotator: the annotator pass.
        narration_s: when it was said, in seconds.
        duration_s: the file's claim about the video's length.
        narration_index: number of the narration within its pass.
        clip_index: number of the line.
    """

    video_id: str
    span_s: SpanS
    text: str
    verbs: tuple[int, ...] = ()
    nouns: tuple[int, ...] = ()
    annotator: str | None = None
    narration_s: float | None = None
    duration_s: float | None = None
    narration_index: int | None = None
    clip_index: int | None = None


def read_egoclip(lines: Iterable[str], origin: str = "egoclip.csv") -> Rows[ClipRow]:
    """Return the rows of an EgoClip or EgoSummary table; spans that cannot be are cut or left out, and listed.

    Args:
        lines: an open text file, or the text's lines with their ends. It is read once, line by line.
        origin: names the file in errors and problems.

    Raises:
        UserError: a column is missing, or a cell is not what the format says; names file and line.
    """
    read: Rows[ClipRow] = Rows([], [])
    for place, cells in read_table(lines, origin, COLUMNS, delimiter="\t"):
        row, problem = clip_row(cells, place)
        if row is not None:
            read.rows.append(row)
        if problem is not None:
            read.problems.append(problem)
    return read


def write_egoclip(rows: Iterable[ClipRow]) -> str:
    """Return the text of a table that `read_egoclip` reads back to equal rows."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(clip_values(row) for row in rows)
    return table.getvalue()


def clip_row(values: Mapping[str, object], place: str) -> tuple[ClipRow | None, Problem | None]:
    """Return `(row or None, problem or None)` of one line, or of one row object of a multiple-choice file.

    Raises:
        UserError: video, span or text missing, or a value of another kind.
    """
    for name in ("video_uid", "clip_start", "clip_end", "clip_text"):
        if name not in values:
            refuse(place, f"no '{name}'", "video_uid, clip_start, clip_end and clip_text")
    # 3.8 million rows name 8,000 videos and two passes: one string for each.
    video_id = sys.intern(text_of(values["video_uid"], f"{place}, video_uid"))
    duration_s = _optional_number(values, "video_dur", place)
    if duration_s is not None and duration_s <= 0:
        refuse(f"{place}, video_dur", duration_s, "seconds above 0, or nothing")
    start_s, end_s = (number(values[name], f"{place}, {name}") for name in ("clip_start", "clip_end"))
    span_s, message = fit_span(start_s, end_s, duration_s)
    problem = None if message is None else Problem(place, video_id, message)
    annotator = values.get("narration_source")
    row = ClipRow(
        video_id=video_id,
        span_s=span_s or (start_s, end_s),
        text=text_of(values["clip_text"], f"{place}, clip_text"),
        verbs=id_list(values.get("tag_verb", ""), f"{place}, tag_verb"),
        nouns=id_list(values.get("tag_noun", ""), f"{place}, tag_noun"),
        annotator=None if _says_nothing(annotator) else sys.intern(text_of(annotator, f"{place}, narration_source")),
        narration_s=_optional_number(values, "narration_time", place),
        duration_s=duration_s,
        narration_index=_optional_index(values, "narration_ind", place),
        clip_index=_optional_index(values, "clip_idx", place),
    )
    return (None if span_s is None else row), problem


def clip_values(row: ClipRow) -> dict[str, object]:
    """Return the row object of a multiple-choice file: what `clip_row` reads, without what the row does not say."""
    values: dict[str, object] = {
        "clip_idx": row.clip_index,
        "video_uid": row.video_id,
        "video_dur": row.duration_s,
        "narration_source": row.annotator,
        "narration_ind": row.narration_index,
        "narration_time": row.narration_s,
        "clip_start": row.span_s[0],
        "clip_end": row.span_s[1],
        "clip_text": row.text,
        "tag_verb": str(list(row.verbs)),
        "tag_noun": str(list(row.nouns)),
    }
    return {name: value for name, value in values.items() if value is not None}


def _says_nothing(value: object) -> bool:
    return value is None or str(value).strip().lower() in _NOTHING


def _optional_number(values: Mapping[str, object], name: str, place: str) -> float | None:
    value = values.get(name)
    return None if _says_nothing(value) else number(value, f"{place}, {name}")


def _optional_index(values: Mapping[str, object], name: str, place: str) -> int | None:
    value = values.get(name)
    return None if _says_nothing(value) else whole_number(value, f"{place}, {name}")
