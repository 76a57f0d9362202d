"""From rows of clips and summaries to annotated videos: what `annotations_json` writes and a store takes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from hvlm.data.activitynet import VideoAnnotation, canonical_id
from hvlm.data.hierarchy import TimedKey, build_hierarchy
from hvlm.data.question_builder import require_disjoint
from hvlm.data.readers.egoclip import ClipRow


def annotated_videos(
    clips: Iterable[ClipRow], summaries: Iterable[ClipRow], subset: str | None = None
) -> dict[str, VideoAnnotation]:
    """Return the rows by video: those of `clips` as captions, those of `summaries` as summaries of parts.

    Args:
        clips, summaries: in any order; their annotator is the pass.
        subset: of all of them; None leaves it to the hash of the id.
    """
    videos: dict[str, VideoAnnotation] = {}
    for rows, kind in ((clips, "captions"), (summaries, "summaries")):
        for row in rows:
            video = videos.get(row.video_id)
            if video is None:
                video = videos[row.video_id] = VideoAnnotation(subset=subset, duration_s=row.duration_s)
            getattr(video, kind).append(_item(row))
    return videos


def merge_videos(parts: Iterable[Mapping[str, VideoAnnotation]]) -> dict[str, VideoAnnotation]:
    """Return all parts as one: the texts of a video that several parts tell of, one part after the other.

    Raises:
        UserError: parts of different subsets share a video, under either spelling of its id.
    """
    by_subset: dict[str, set[str]] = {}
    merged: dict[str, VideoAnnotation] = {}
    for part in parts:
        for video_id, video in part.items():
            by_subset.setdefault(video.subset or "unassigned", set()).add(canonical_id(video_id))
            known = merged.get(video_id)
            merged[video_id] = video if known is None else _both(known, video)
    for one, two in combinations(sorted(by_subset), 2):
        require_disjoint(by_subset[one], by_subset[two], (one, two))
    return merged


def bare_summaries(videos: Mapping[str, VideoAnnotation]) -> list[str]:
    """Return `video: summary`, with its pass, of each summary of a part that covers no caption of its pass."""
    bare = []
    for video_id, video in videos.items():
        keys = [_key(video_id, item) for item in video.summaries]
        covered = build_hierarchy([_key(video_id, item) for item in video.captions], keys)
        for key, item in zip(keys, video.summaries, strict=True):
            if not len(covered[key]):
                bare.append(f"{video_id}: '{item['text']}' ({key.pass_id or 'no pass'})")
    return bare


def _item(row: ClipRow) -> dict[str, Any]:
    item: dict[str, Any] = {"text": row.text, "segment": list(row.span_s)}
    said = {"verbs": list(row.verbs), "nouns": list(row.nouns), "pass": row.annotator}
    return item | {name: value for name, value in said.items() if value}


def _key(video_id: str, item: Mapping[str, Any]) -> TimedKey:
    start_s, end_s = item["segment"]
    return TimedKey(video_id, start_s, end_s, item.get("pass", ""))


def _both(one: VideoAnnotation, two: VideoAnnotation) -> VideoAnnotation:
    return replace(
        one,
        duration_s=one.duration_s or two.duration_s,
        captions=one.captions + [item for item in two.captions if item not in one.captions],
        summaries=one.summaries + [item for item in two.summaries if item not in one.summaries],
    )
