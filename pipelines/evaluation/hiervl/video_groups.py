"""Whole videos and their captions: retrieval by text, and classification by labels of the store or of a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from hvlm.data.readers.howto100m import LabelledVideo as FileRow
from hvlm.data.readers.rows import in_store
from hvlm.metrics.linear_probe import ProbeConfig
from pipelines.evaluation.classification_group import (
    ap_figures,
    classification_group,
    named_ap,
    prediction_columns,
)
from pipelines.evaluation.hiervl.groups import Outcome, StoreGroup
from pipelines.evaluation.hiervl.places import Floats32, Place, VideoVectors
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, Absent
from pipelines.evaluation.parts import make_parts, probes_refused
from pipelines.evaluation.retrieval_group import TextSpace, rank_columns, recall_figures, retrieval_group


class _Told(NamedTuple):
    """A video as retrieval sees it."""

    summary: str | None
    captions: list[dict[str, Any]]
    spaces: Mapping[str, TextSpace]


class _Features(NamedTuple):
    video_D: Floats32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """A video as the classification sees it."""

    key: str
    split: str
    activity: str | None
    kinds: Mapping[str, _Features]
    annotations: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RetrievalGroup(StoreGroup):
    """Whole videos by their summaries, clips by their captions. `num_frames`: of a caption's clip."""

    num_frames: int
    name: str = "retrieval"
    title: str = "Retrieval"
    beside_text: bool = True

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return recall and rank of both levels in both directions."""
        videos = vectors.reported
        told = [self._told(vectors, video) for video in videos]
        result = retrieval_group(told, vectors.split, vectors.texts, {})
        ranks = rank_columns(told, result.details)
        columns = {
            name: {video.key: row[name] for video, row in zip(videos, ranks, strict=True)}
            for name in (ranks[0] if ranks else ())
        }
        return Outcome(rows=result.rows, absent=result.absent, figures=recall_figures(result.details), columns=columns)

    def _told(self, vectors: SplitVectors, video: VideoVectors) -> _Told:
        clips = zip(video.captions, video.caption_places(self.num_frames), strict=True)
        known = [(caption, place) for caption, place in clips if vectors.has(place)]
        whole = video.segment()
        if not vectors.has(whole):
            return _Told(None, [], {})
        spaces = {}
        for kind in KINDS:
            both = vectors.beside_text(kind, [whole, *(place for _, place in known)])
            spaces[kind] = TextSpace(video_E=both[0], captions_PE=both[1:])
        return _Told(video.summary, [caption for caption, _ in known], spaces)


@dataclass(frozen=True, slots=True)
class LabelGroup(StoreGroup):
    """The labels and the activity that the store has of its videos, by probe and k-NN on whole videos."""

    probe: ProbeConfig
    knn_k: int
    seed: int
    name: str = "classification"
    title: str = "Video classification"
    beside_text: bool = False

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return what probes find; nothing on the splits that they learn from."""
        videos = [video for video in vectors.videos if vectors.has(video.segment())]
        labelled = [
            _Labelled(
                key=video.key,
                split=video.split,
                activity=video.activity,
                annotations=video.annotations,
                kinds=_kinds(vectors, video.segment()),
            )
            for video in videos
        ]
        return _classified(self, vectors.split, labelled)


@dataclass(frozen=True, slots=True)
class LongVideoGroup:
    """The labels of a file (HowTo100M's tasks), by probe and k-NN on long segments."""

    train: Sequence[FileRow]
    test: Sequence[FileRow]
    settings: LabelGroup
    name: str = "long_video"
    title: str = "Long-video classification, labels of a file"
    beside_text: bool = False

    def places(self) -> Iterable[Place]:
        """Return all segments of the files."""
        return (_place(row) for row in (*self.train, *self.test))

    def texts(self) -> Iterable[str]:
        """Return nothing."""
        return ()

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return the metrics of the test rows that are in the split."""
        learnt = {video.video_id for video in vectors.videos if video.split in ("train", "dev")}
        train, test = in_store(self.train, learnt), in_store(self.test, vectors.reported_ids)
        split_of = {video.video_id: video.split for video in vectors.videos}
        labelled = [
            # A video may have several segments, so a segment is called by its place.
            _Labelled(
                key=str(tuple(_place(row))),
                split=split_of[row.video_id],
                activity=f"class {row.label}",
                kinds=_kinds(vectors, _place(row)),
            )
            for row in (*train.rows, *test.rows)
            if vectors.has(_place(row))
        ]
        outcome = _classified(self.settings, vectors.split, labelled)
        before, after = f"{vectors.split}/video/", f"{vectors.split}/video/long_video/"
        return replace(
            outcome,
            rows=[replace(row, name=row.name.replace(before, after, 1), unit="segments") for row in outcome.rows],
            absent=[Absent(each.metrics.replace(before, after), each.why) for each in outcome.absent],
            per_class_ap={f"long_video/{name}": ap for name, ap in outcome.per_class_ap.items()},
            missing={**train.absent, **test.absent},
            columns={},
        )


def _classified(settings: LabelGroup, split: str, labelled: Sequence[_Labelled]) -> Outcome:
    parts = make_parts(labelled, split)
    why = probes_refused(parts) or ("" if parts.report else "no labelled video in the split")
    if why:
        places = ", ".join(f"{split}/video/{place}/*" for place in ("linear_probe", "knn"))
        return Outcome(absent=[Absent(places, why)])
    result = classification_group(parts, settings.probe, knn_k=settings.knn_k, seed=settings.seed)
    predicted = prediction_columns(result.details, len(parts.report))
    columns: dict[str, dict[str, Any]] = {
        name: {video.key: row[name] for video, row in zip(parts.report, predicted, strict=True)}
        for name in predicted[0]
    }
    return Outcome(
        rows=result.rows,
        absent=result.absent,
        figures=ap_figures(result.details),
        columns=columns,
        per_class_ap={f"classification/{name}": ap for name, ap in named_ap(result.details).items()},
    )


def _place(row: FileRow) -> Place:
    return Place(row.video_id, *row.span_s)


def _kinds(vectors: SplitVectors, place: Place) -> dict[str, _Features]:
    return {kind: _Features(vectors.features(kind, [place])[0]) for kind in KINDS}
