"""Annotation files of two-level data sets become the annotation file of a source: captions and summaries of each video.

A part is what one subset has: tables of EgoClip and EgoSummary, or a file of ActivityNet Captions. Parts of one subset
may tell of the same videos (two annotators' files); parts of different subsets may not.
"""

import io
from dataclasses import dataclass
from typing import Literal

from hvlm.config import Config, require
from hvlm.data.activitynet import Annotations, Reconciliation, VideoAnnotation, annotations_json, reconcile
from hvlm.data.annotated_videos import annotated_videos, bare_summaries, merge_videos
from hvlm.data.readers.activitynet_captions import read_activitynet_captions
from hvlm.data.readers.egoclip import ClipRow, read_egoclip
from hvlm.data.readers.rows import Rows
from hvlm.data.readers.summary_hierarchy import read_summary_hierarchy
from hvlm.errors import UserError
from infra import storage
from pipelines.store.sources import SourceConfig, list_source


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationPartConfig(Config):
    """Files of one subset.

    Args:
        subset: None leaves the split of each video to the hash of its id.
        clips_uri: a table like EgoClip. summaries_uri: one like EgoSummary.
        hierarchy_uri: EgoSummary's json with the clips of its summaries, in place of `clips_uri`; it says no passes, so
            those of the summaries are dropped.
        captions_uri: a file of ActivityNet Captions. captions_pass: names its annotators where two files tell of the
            same videos.
    """

    subset: Literal["training", "validation", "testing"] | None = None
    clips_uri: str | None = None
    summaries_uri: str | None = None
    hierarchy_uri: str | None = None
    captions_uri: str | None = None
    captions_pass: str | None = None

    def __post_init__(self) -> None:
        require(
            bool(self.clips_uri or self.summaries_uri or self.captions_uri),
            what="parts",
            got="a part without a file",
            expected="clips_uri, summaries_uri or captions_uri",
            do="name a file, or leave the part out",
        )
        require(
            self.hierarchy_uri is None or (self.summaries_uri is not None and self.clips_uri is None),
            what="parts, hierarchy_uri",
            got="without summaries_uri" if self.summaries_uri is None else "beside clips_uri",
            expected="summaries_uri, which names the videos, and no clips_uri, which has these clips and their passes",
            do="name summaries_uri and one of the two",
        )
        require(
            self.captions_pass is None or self.captions_uri is not None,
            what="parts, captions_pass",
            got=f"'{self.captions_pass}' without captions_uri",
            expected="the file whose annotators it names",
            do="name it, or leave captions_pass out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationsConfig(Config):
    """What is read, and the file that is written, which an extraction or import takes as its `annotations_uri`.

    Args:
        source: the videos, as in an extraction: those on one side only are listed; None to list none.
        max_listed: how many of each kind the report names.
    """

    output_uri: str
    parts: tuple[AnnotationPartConfig, ...]
    source: SourceConfig | None = None
    max_listed: int = 10

    def __post_init__(self) -> None:
        require(bool(self.parts), what="parts", got="none", expected="at least one", do="name the files to read")
        require(
            self.source is None or self.source.annotations_uri is None,
            what="source.annotations_uri",
            got=self.source and self.source.annotations_uri,
            expected="none: it is what this job writes",
            do="leave it out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationsReport:
    """What was written and what was not.

    Args:
        problems: rows that were cut or left out, with file and line. bare: summaries that cover no caption.
        reconciliation: the ids that do not meet those of the source; None without one.
    """

    num_videos: int
    num_captions: int
    num_summaries: int
    problems: list[str]
    bare: list[str]
    reconciliation: Reconciliation | None


def make_annotations(config: AnnotationsConfig) -> AnnotationsReport:
    """Write one annotation file of all parts; the same files give the same bytes.

    Raises:
        UserError: a file is missing or not as its format says, or two subsets share a video; nothing is written then.
    """
    problems: list[str] = []
    videos = merge_videos([_read_part(part, problems) for part in config.parts])
    reconciliation = None
    if config.source is not None:
        found = list_source(config.source).frame["video_id"]
        reconciliation = reconcile(Annotations(videos, []), found)
    storage.atomic_write(config.output_uri, annotations_json(videos).encode())
    return AnnotationsReport(
        num_videos=len(videos),
        num_captions=sum(len(video.captions) for video in videos.values()),
        num_summaries=sum(len(video.summaries) for video in videos.values()),
        problems=problems,
        bare=bare_summaries(videos),
        reconciliation=reconciliation,
    )


def _read_part(part: AnnotationPartConfig, problems: list[str]) -> dict[str, VideoAnnotation]:
    clips, summaries = (_table(uri) for uri in (part.clips_uri, part.summaries_uri))
    if part.hierarchy_uri is not None:
        clips = read_summary_hierarchy(_text(part.hierarchy_uri), summaries.rows, part.hierarchy_uri)
        summaries = Rows([row._replace(annotator=None) for row in summaries.rows], summaries.problems)
    problems += (f"{each.where} ({each.video_id}): {each.message}" for each in (*clips.problems, *summaries.problems))
    read = [annotated_videos(clips.rows, summaries.rows, part.subset)]
    if part.captions_uri is not None:
        told = read_activitynet_captions(_text(part.captions_uri), part.subset, part.captions_uri, part.captions_pass)
        problems += (f"{part.captions_uri}, video '{video_id}': {message}" for video_id, message in told.problems)
        read.append(told.videos)
    return merge_videos(read)


def _table(uri: str | None) -> Rows[ClipRow]:
    return Rows([], []) if uri is None else read_egoclip(io.StringIO(_text(uri), newline=""), uri)


def _text(uri: str) -> str:
    try:
        with storage.reachable("an annotation file", uri):
            return storage.read_bytes(uri).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            what="an annotation file",
            got=f"{uri} ({type(error).__name__})",
            expected="a readable text file in UTF-8",
            do="check the path and its permissions",
        ) from error
