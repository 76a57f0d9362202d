"""ActivityNet annotation files, and ours, which add captions and summaries.

    {"database": {"<id>": {"subset": "training", "duration": 82.7,
                           "annotations": [{"label": "Rafting", "segment": [6.7, 36.2]}],
                           "captions": [{"text": "a raft turns", "segment": [6.7, 12.0], "pass": "one"}],
                           "summaries": [{"text": "they set off", "segment": [0.0, 30.0], "pass": "one"}],
                           "summary": "a group rafts"}}}

"captions", "summaries" (of parts) and "summary" (of the whole video) are our keys and optional. A caption or one of the
summaries may have "verbs" and "nouns", lists of ids, and "pass", which names the annotator's pass through the video; a
summary of a part covers the captions of its pass. "taxonomy", "version" and further keys are ignored.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hvlm.errors import UserError

SpanS = tuple[float, float]
_YOUTUBE_ID_LENGTH = 11
MAX_TAG = 65_535
"""Highest id of a verb or noun: training keeps a column for each id."""
ROUNDING_S = 0.02
"""A segment may end this much after the duration before it is listed: the official file rounds durations to 0.01 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoAnnotation:
    """What the file says about one video. `duration_s` is the file's claim, None if it has none."""

    subset: str | None = None
    duration_s: float | None = None
    annotations: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """A whole file.

    Args:
        videos: by the id as it stands in the file.
        problems: `(video id, what was wrong and what was done)`, one for each row that was cut or left out.
    """

    videos: dict[str, VideoAnnotation]
    problems: list[tuple[str, str]]
    _by_canonical: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for video_id in self.videos:
            self._by_canonical.setdefault(canonical_id(video_id), video_id)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted: position = class index."""
        return sorted({item["label"] for video in self.videos.values() for item in video.annotations})

    def find(self, video_id: str) -> VideoAnnotation | None:
        """Return the annotation of a video: by its exact id, else by the `v_` rule (see `canonical_id`)."""
        name = self.name_of(video_id)
        return None if name is None else self.videos[name]

    def name_of(self, video_id: str) -> str | None:
        """Return the id under which the file knows a video, or None."""
        return video_id if video_id in self.videos else self._by_canonical.get(canonical_id(video_id))


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Which ids do not meet: videos without an annotation, annotated ids without a video. Both sorted."""

    without_annotation: list[str]
    without_video: list[str]


def canonical_id(video_id: str) -> str:
    """Return the id without a leading `v_`, but only when 11 characters remain.

    A YouTube id has 11 characters and may itself begin with `v_`.
    """
    if video_id.startswith("v_") and len(video_id) == _YOUTUBE_ID_LENGTH + 2:
        return video_id[2:]
    return video_id


def reconcile(annotations: Annotations, video_ids: Iterable[str]) -> Reconciliation:
    """Return the ids on either side that have no partner on the other."""
    ids = list(video_ids)
    met = {annotations.name_of(video_id) for video_id in ids}
    return Reconciliation(
        without_annotation=sorted(video_id for video_id in ids if annotations.name_of(video_id) is None),
        without_video=sorted(name for name in annotations.videos if name not in met),
    )


def read_annotations(text: str, origin: str = "annotations") -> Annotations:
    """Return the annotations in the text of a JSON file; `origin` names it in errors.

    Segments that are reversed, negative or start beyond the duration are left out and listed; one that ends beyond it
    is cut and listed.

    Raises:
        UserError: not JSON, no "database", or an entry of another shape.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(what=origin, got=str(error), expected="valid JSON", do="mend the file there") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise _wrong(origin, 'no "database" mapping', 'the ActivityNet layout {"database": {id: {...}}}')
    problems: list[tuple[str, str]] = []
    videos = {video_id: _read_video(video_id, entry, origin, problems) for video_id, entry in database.items()}
    return Annotations(videos, problems)


def annotations_json(videos: Mapping[str, VideoAnnotation]) -> str:
    """Return the text of a file that `read_annotations` reads back to the same videos, sorted by id."""
    database = {}
    for video_id, video in sorted(videos.items()):
        entry = {
            "subset": video.subset,
            "duration": video.duration_s,
            "annotations": video.annotations,
            "captions": video.captions,
            "summaries": video.summaries,
            "summary": video.summary,
        }
        database[video_id] = {name: value for name, value in entry.items() if value}
    return json.dumps({"database": database}, ensure_ascii=False)


def _read_video(video_id: str, entry: Any, origin: str, problems: list[tuple[str, str]]) -> VideoAnnotation:
    where = f"{origin}, video '{video_id}'"
    if not isinstance(entry, dict):
        raise _wrong(where, type(entry).__name__, "a mapping")
    duration = entry.get("duration")
    if duration is not None and not (_is_number(duration) and duration > 0):
        problems.append((video_id, f"duration {duration!r} is no positive number: ignored"))
        duration = None
    lists: dict[str, list[dict[str, Any]]] = {}
    for name, text_key in (("annotations", "label"), ("captions", "text"), ("summaries", "text")):
        items = [] if entry.get(name) is None else entry[name]
        if not isinstance(items, list):
            raise _wrong(f"{where}, {name}", type(items).__name__, "a list")
        read = (_read_item(item, text_key, f"{where}, {name}[{index}]", duration) for index, item in enumerate(items))
        lists[name] = []
        for item, problem in read:
            if problem:
                problems.append((video_id, problem))
            if item:
                lists[name].append(item)
    for name in ("subset", "summary"):
        if not isinstance(entry.get(name), str | None):
            raise _wrong(f"{where}, {name}", repr(entry[name]), "a text")
    return VideoAnnotation(
        subset=entry.get("subset"),
        duration_s=None if duration is None else float(duration),
        annotations=lists["annotations"],
        captions=lists["captions"],
        summaries=lists["summaries"],
        summary=entry.get("summary"),
    )


def fit_span(start_s: float, end_s: float, duration_s: float | None) -> tuple[SpanS | None, str | None]:
    """Return `(span or None, problem or None)` of one annotated span.

    A span that is negative, empty, reversed or starts beyond the duration is left out. One that ends beyond it is cut
    to it; that is a problem when it is more than a rounding (`ROUNDING_S`).

    Args:
        start_s: start in seconds.
        end_s: end in seconds.
        duration_s: what the file says of the video's length; None if it says nothing.
    """
    name = f"segment [{start_s:g}, {end_s:g}] s"
    if start_s < 0 or end_s <= start_s:
        return None, f"{name} is impossible: left out"
    if duration_s is None or end_s <= duration_s:
        return (start_s, end_s), None
    if start_s >= duration_s:
        return None, f"{name} starts beyond the duration of {duration_s:g} s: left out"
    problem = f"{name} ends beyond the duration of {duration_s:g} s: cut"
    return (start_s, float(duration_s)), problem if end_s > duration_s + ROUNDING_S else None


def _read_item(
    item: Any, text_key: str, where: str, duration_s: float | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return `(item or None, problem or None)`."""
    if not isinstance(item, dict) or not isinstance(item.get(text_key), str):
        raise _wrong(where, repr(item), f'a mapping with the text "{text_key}"')
    kept = {text_key: item[text_key]}
    if isinstance(item.get("label_id"), int):
        kept["label_id"] = item["label_id"]
    for name in ("verbs", "nouns") if text_key == "text" else ():
        if item.get(name):
            if not (isinstance(item[name], list) and all(map(_is_tag, item[name]))):
                raise _wrong(where, f"{name} {item[name]!r}", f"a list of ids, 0 to {MAX_TAG}")
            kept[name] = item[name]
    if text_key == "text" and item.get("pass"):
        if not isinstance(item["pass"], str):
            raise _wrong(where, f"pass {item['pass']!r}", "a text")
        kept["pass"] = item["pass"]
    segment = item.get("segment")
    if segment is None and text_key == "text":
        return kept | {"segment": None}, None
    if not (isinstance(segment, list) and len(segment) == 2 and all(map(_is_number, segment))):
        raise _wrong(where, f"segment {segment!r}", "[start_s, end_s]")
    start_s, end_s = map(float, segment)
    span_s, problem = fit_span(start_s, end_s, duration_s)
    return kept | {"segment": list(span_s)} if span_s else None, problem and f"'{kept[text_key]}': {problem}"


def _is_tag(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TAG


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(what: str, got: str, expected: str) -> UserError:
    return UserError(what=what, got=got, expected=expected, do="correct the annotation file")
