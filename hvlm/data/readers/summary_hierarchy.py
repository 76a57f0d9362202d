"""The hierarchy file of EgoSummary, `summary_clips_hierarchy_full.json`: summaries with the clips inside them.

    {"C cooks a meal": {"summary_start": 0.0, "summary_end": 300.0, "clip_start": [2.9], "clip_end": [3.7],
                        "clip_text": ["#C C cuts an onion"], "tag_verb": ["[93]"], "tag_noun": ["[192, 12]"]}}

It is keyed by the sentence: it names no video, of equal sentences it keeps the last, and the clips of all annotators'
passes stand in one list. So each entry is looked up among the summaries of the table, which name the video; what is
found in none or in several videos is listed. Where the table of clips is at hand, take that: it has every clip and its
pass.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from hvlm.data.activitynet import ROUNDING_S
from hvlm.data.readers.egoclip import ClipRow, clip_row
from hvlm.data.readers.parsing import number, read_json_mapping, refuse
from hvlm.data.readers.rows import Problem, Rows

_LISTS = ("clip_start", "clip_end", "clip_text", "tag_verb", "tag_noun")


def read_summary_hierarchy(
    text: str, summaries: Iterable[ClipRow], origin: str = "summary_clips_hierarchy_full.json"
) -> Rows[ClipRow]:
    """Return the clips of the entries, each once, with the video of their summary and without a pass.

    Args:
        text: the file.
        summaries: rows of the summaries' table.
        origin: names the file in errors and problems.

    Raises:
        UserError: not JSON, or an entry of another shape; names the sentence.
    """
    by_sentence: dict[str, list[ClipRow]] = {}
    for row in summaries:
        by_sentence.setdefault(row.text, []).append(row)
    found: dict[ClipRow, None] = {}
    problems: list[Problem] = []
    for sentence, entry in read_json_mapping(text, origin).items():
        where = f"{origin}, '{sentence}'"
        clips = list(_clips(entry, where))
        start_s, end_s = (number(entry.get(name), f"{where}, {name}") for name in ("summary_start", "summary_end"))
        meant = [row for row in by_sentence.get(sentence.strip(), []) if _is_span_of(row, start_s, end_s)]
        videos = sorted({row.video_id for row in meant})
        if len(videos) != 1:
            message = f"{len(clips)} clips of a summary that the table has of {len(videos)} videos: left out"
            problems.append(Problem(where, ", ".join(videos) or "?", message))
            continue
        for index, clip in enumerate(clips):
            values = clip | {"video_uid": videos[0], "video_dur": meant[0].duration_s}
            told, problem = clip_row(values, f"{where}, clip {index}")
            if told is not None:
                found[told] = None
            if problem is not None:
                problems.append(problem)
    return Rows(list(found), problems)


def _clips(entry: Any, where: str) -> Iterator[dict[str, object]]:
    lists = [entry.get(name) for name in _LISTS] if isinstance(entry, dict) else []
    lengths = {len(values) if isinstance(values, list) else -1 for values in lists}
    if len(lengths) != 1 or -1 in lengths:
        refuse(where, f"lists of the lengths {sorted(lengths)}", f"{', '.join(_LISTS)}: lists of one length")
    for values in zip(*lists, strict=True):
        yield dict(zip(_LISTS, values, strict=True))


def _is_span_of(row: ClipRow, start_s: float, end_s: float) -> bool:
    """Whether an entry's segment is a row's, which may have been cut to the video's length."""
    cut_s = end_s if row.duration_s is None else min(end_s, row.duration_s)
    return abs(start_s - row.span_s[0]) <= ROUNDING_S and abs(cut_s - row.span_s[1]) <= ROUNDING_S
