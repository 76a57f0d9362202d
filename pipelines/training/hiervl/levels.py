"""The two levels of a store: each video's captions with their spans, and its summaries with the captions they cover.

A video's captions are the child level's texts, its summaries are the parent level's. A summary of the whole video
covers all its captions, a summary of a part those that lie fully inside it and are of the same annotator's pass. A
video without any takes its captions, in the order of time, as one paragraph of each pass (so it is done with
ActivityNet Captions), which is contrasted with the video alone: its captions would find it by its words. The text tower
reads as much of it as it has room for. A video without captions has no child samples, and one without either no sample
at all: both are counted and listed, here and in the file, as are summaries that cover no caption.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hvlm.data.hierarchy import TimedKey, build_hierarchy
from hvlm.data.samples import SampleMeta
from infra import storage


class Caption(NamedTuple):
    """Span of a caption in seconds, and the ids of its verbs and nouns where the metadata have them."""

    start_s: float
    end_s: float
    verbs: tuple[int, ...] = ()
    nouns: tuple[int, ...] = ()

    @property
    def span_s(self) -> tuple[float, float]:
        """(start, end)."""
        return self.start_s, self.end_s


class Summary(NamedTuple):
    """Span of a summary in seconds, and the positions of the video's captions that it covers, in the order of time.

    own: it is not made of the captions. verbs, nouns: ids of its own tags where the metadata have them.
    """

    start_s: float
    end_s: float
    captions: tuple[int, ...]
    own: bool = True
    verbs: tuple[int, ...] = ()
    nouns: tuple[int, ...] = ()

    @property
    def span_s(self) -> tuple[float, float]:
        """(start, end)."""
        return self.start_s, self.end_s


class VideoLevels(NamedTuple):
    """What a video has. Its texts stand in the text table: those of `captions` in this order, then of `summaries`.

    row_s: how long a row of the features stands for the video. span_s: the part that the sample covers.
    """

    row_s: float
    span_s: tuple[float, float]
    captions: tuple[Caption, ...]
    summaries: tuple[Summary, ...]

    @property
    def whole_summary(self) -> int | None:
        """Number of the first summary that tells of the whole video; None where there is none."""
        return next((number for number, each in enumerate(self.summaries) if each.span_s == self.span_s), None)


@dataclass(frozen=True)
class Levels:
    """`videos` by key; `num_verbs` and `num_nouns`: 1 + the highest id, 0 without tags."""

    videos: Mapping[str, VideoLevels]

    @cached_property
    def num_verbs(self) -> int:
        """Width of a multi-hot vector of verbs."""
        return 1 + max((i for each in self._texts() for i in each.verbs), default=-1)

    @cached_property
    def num_nouns(self) -> int:
        """Width of a multi-hot vector of nouns."""
        return 1 + max((i for each in self._texts() for i in each.nouns), default=-1)

    def _texts(self) -> Iterator[Caption | Summary]:
        for video in self.videos.values():
            yield from video.captions
            yield from video.summaries

    def without(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return which of these videos have no captions, and which no summary."""
        known = [(key, self.videos[key]) for key in sorted(keys)]
        return [key for key, each in known if not each.captions], [key for key, each in known if not each.summaries]

    def bare_summaries(self, keys: Iterable[str]) -> list[str]:
        """Return the names of these videos' summaries that cover no caption."""
        return [
            summary_name(key, number)
            for key in sorted(keys)
            for number, each in enumerate(self.videos[key].summaries)
            if not each.captions
        ]


def summary_name(key: str, number: int) -> str:
    """Return the name of a video's summary as a sample: the first one's is the video's key."""
    return f"{key}#summary{number}" if number else key


class _Told(NamedTuple):
    caption: Caption
    text: str
    pass_id: str


def read_video_levels(meta: SampleMeta) -> tuple[VideoLevels, list[str]]:
    """Return a video's levels and its texts: its captions', then its summaries'.

    Texts without words or without length are left out; those without a segment tell of the whole video.
    """
    span_s = (float(meta.span_s[0]), float(meta.span_s[1]))
    captions, parts = (_told(items, span_s) for items in (meta.captions, meta.summaries))
    summaries: list[tuple[Summary, str]] = []
    if whole := (meta.summary or "").strip():
        summaries.append((Summary(*span_s, tuple(range(len(captions)))), whole))
    keys = [TimedKey(meta.video_id, *each.caption.span_s, each.pass_id) for each in parts]
    covered = build_hierarchy([TimedKey(meta.video_id, *each.caption.span_s, each.pass_id) for each in captions], keys)
    for key, part in zip(keys, parts, strict=True):
        start_s, end_s, verbs, nouns = part.caption
        summaries.append((Summary(start_s, end_s, tuple(covered[key].tolist()), True, verbs, nouns), part.text))
    if not summaries:
        for pass_id in dict.fromkeys(each.pass_id for each in captions):
            own = tuple(i for i, each in enumerate(captions) if each.pass_id == pass_id)
            summaries.append((Summary(*span_s, own, own=False), " ".join(captions[i].text for i in own)))
    levels = VideoLevels(
        row_s=max(meta.stride_s, meta.clip_s),
        span_s=span_s,
        captions=tuple(each.caption for each in captions),
        summaries=tuple(summary for summary, _ in summaries),
    )
    return levels, [*(each.text for each in captions), *(text for _, text in summaries)]


def _told(items: Iterable[Mapping[str, Any]], span_s: tuple[float, float]) -> list[_Told]:
    """The texts with words and length, in the order of time."""
    told = []
    for item in items:
        start_s, end_s = item["segment"] or span_s
        text = item["text"].strip()
        if text and start_s < end_s:
            tags = (tuple(int(i) for i in item.get(name) or ()) for name in ("verbs", "nouns"))
            told.append(_Told(Caption(float(start_s), float(end_s), *tags), text, item.get("pass") or ""))
    return sorted(told, key=lambda each: each.caption.span_s)


def write_levels(uri: str, levels: Levels) -> None:
    """Write the levels, the lists of videos that lack one, and of summaries that cover no caption."""
    without_captions, without_summary = levels.without(levels.videos)
    content = {
        "videos": levels.videos,
        "without_captions": without_captions,
        "without_summary": without_summary,
        "summaries_without_captions": levels.bare_summaries(levels.videos),
    }
    storage.atomic_write(uri, json.dumps(content, sort_keys=True).encode() + b"\n")


def read_levels(uri: str) -> Levels:
    """Return what `write_levels` wrote."""
    videos: dict[str, list[Any]] = json.loads(storage.read_bytes(uri))["videos"]
    return Levels({key: _video(values) for key, values in videos.items()})


def _video(values: list[Any]) -> VideoLevels:
    row_s, span_s, captions, summaries = values
    return VideoLevels(
        row_s,
        tuple(span_s),
        tuple(Caption(start, end, tuple(verbs), tuple(nouns)) for start, end, verbs, nouns in captions),
        tuple(
            Summary(start, end, tuple(covered), own, tuple(verbs), tuple(nouns))
            for start, end, covered, own, verbs, nouns in summaries
        ),
    )
