"""The two levels of a store: each video's captions with their spans, and its summary.

A video's captions are the child level's texts, its summary is the parent level's. A video without a summary takes its
captions, in the order of time, as one paragraph (so it is done with ActivityNet Captions), which is contrasted with the
video alone: its captions would find it by its words. The text tower reads as much of it as it has room for. A video
without captions has no child samples, and one without either no sample at all: both are counted and listed, here and in
the file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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


class VideoLevels(NamedTuple):
    """What a video has. Its texts stand in the text table: those of `captions` in this order, then the summary.

    row_s: how long a row of the features stands for the video. span_s: the part that the sample covers. own_summary: it
    is not made of the captions.
    """

    row_s: float
    span_s: tuple[float, float]
    captions: tuple[Caption, ...]
    has_summary: bool
    own_summary: bool


@dataclass(frozen=True)
class Levels:
    """`videos` by key; `num_verbs` and `num_nouns`: 1 + the highest id, 0 without tags."""

    videos: Mapping[str, VideoLevels]

    @cached_property
    def num_verbs(self) -> int:
        """Width of a multi-hot vector of verbs."""
        return 1 + max((i for video in self.videos.values() for c in video.captions for i in c.verbs), default=-1)

    @cached_property
    def num_nouns(self) -> int:
        """Width of a multi-hot vector of nouns."""
        return 1 + max((i for video in self.videos.values() for c in video.captions for i in c.nouns), default=-1)

    def without(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return which of these videos have no captions, and which no summary."""
        known = [(key, self.videos[key]) for key in sorted(keys)]
        return [key for key, each in known if not each.captions], [key for key, each in known if not each.has_summary]


def read_video_levels(meta: SampleMeta) -> tuple[VideoLevels, list[str]]:
    """Return a video's levels and its texts, the summary last.

    Captions without words or without length are left out; those without a segment tell of the whole video.
    """
    captions: list[tuple[Caption, str]] = []
    for item in meta.captions:
        start_s, end_s = item["segment"] or meta.span_s
        text = item["text"].strip()
        if text and start_s < end_s:
            tags = (tuple(int(i) for i in item.get(name) or ()) for name in ("verbs", "nouns"))
            captions.append((Caption(float(start_s), float(end_s), *tags), text))
    captions.sort(key=lambda each: each[0].span_s)
    texts = [text for _, text in captions]
    given = (meta.summary or "").strip()
    summary = given or " ".join(texts)
    levels = VideoLevels(
        row_s=max(meta.stride_s, meta.clip_s),
        span_s=(float(meta.span_s[0]), float(meta.span_s[1])),
        captions=tuple(caption for caption, _ in captions),
        has_summary=bool(summary),
        own_summary=bool(given),
    )
    return levels, [*texts, summary] if summary else texts


def write_levels(uri: str, levels: Levels) -> None:
    """Write the levels, and the lists of videos that lack one."""
    without_captions, without_summary = levels.without(levels.videos)
    content = {"videos": levels.videos, "without_captions": without_captions, "without_summary": without_summary}
    storage.atomic_write(uri, json.dumps(content, sort_keys=True).encode() + b"\n")


def read_levels(uri: str) -> Levels:
    """Return what `write_levels` wrote."""
    videos: dict[str, list[Any]] = json.loads(storage.read_bytes(uri))["videos"]
    return Levels({key: _video(values) for key, values in videos.items()})


def _video(values: list[Any]) -> VideoLevels:
    row_s, span_s, captions, has_summary, own_summary = values
    made = tuple(Caption(start, end, tuple(verbs), tuple(nouns)) for start, end, verbs, nouns in captions)
    return VideoLevels(row_s, tuple(span_s), made, has_summary, own_summary)
