"""Charades: a video's score for a class is its cosine with the class's name.

Shapes: V videos, N clips, C classes, E width of a space that has texts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.data.readers.charades import CharadesClip, CharadesVideo
from hvlm.data.readers.rows import in_store
from hvlm.metrics.classification import average_precision_per_class, charades_mean_ap
from hvlm.metrics.text_head import TextHeadConfig, fit_text_head
from pipelines.evaluation.hiervl.epic_group import random_scores
from pipelines.evaluation.hiervl.groups import Outcome
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, OURS, RAW, Absent, MetricRow
from pipelines.evaluation.parts import LEARNT_ON

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CharadesGroup:
    """mAP of videos by class: zero-shot, and with a head between frozen clips and the names of the classes.

    Args:
        videos: of the official table. class_names: place = class index.
        train: clips to fit the head on; none, no head. head: how it is fitted.
        num_frames: of a whole video as one clip, and of a clip to fit on. seed: of the fit and of chance.
    """

    videos: Sequence[CharadesVideo]
    class_names: Sequence[str]
    train: Sequence[CharadesClip]
    head: TextHeadConfig
    num_frames: int
    seed: int
    name: str = "charades"
    title: str = "Charades"
    beside_text: bool = True

    def places(self) -> Iterable[Place]:
        """Return every video as one clip, and the clips of the training table."""
        return (*map(self._place, self.videos), *map(self._clip, self.train))

    def texts(self) -> Iterable[str]:
        """Return the names of the classes."""
        return self.class_names

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return the mAP over the classes that some video has."""
        stored = in_store(self.videos, vectors.reported_ids)
        kept = [video for video in stored.rows if vectors.has(self._place(video))]
        prefix = f"{vectors.split}/video/{self.name}"
        if not any(video.labels for video in kept):
            why = f"no labelled video of the file is in '{vectors.split}'"
            return Outcome(absent=[Absent(f"{prefix}/*", why)], missing=stored.absent)
        label_VC = np.zeros((len(kept), len(self.class_names)), dtype=bool)
        for row, video in enumerate(kept):
            label_VC[row, list(video.labels)] = True
        names, places = list(self.class_names), [self._place(video) for video in kept]
        chance = float(
            np.mean([charades_mean_ap(draw, label_VC)[0] for draw in random_scores(label_VC.shape, self.seed)])
        )
        zero_shot = {kind: vectors.cosines(kind, names, places).T for kind in KINDS}
        of_head, why, absent_clips = self._with_head(vectors, places)
        rows, per_class = [], {}
        for method, scores, note in (("zero_shot", zero_shot, ""), ("small_head", of_head, why)):
            if scores:
                rows.append(_row(f"{prefix}/{method}/mean_ap", scores, label_VC, (chance, note)))
                per_class[f"{self.name}/{method}"] = _named(names, scores, label_VC)
        return Outcome(
            rows=rows,
            absent=[] if of_head else [Absent(f"{prefix}/small_head/*", why)],
            missing={**absent_clips, **stored.absent},
            per_class_ap=per_class,
        )

    def _with_head(
        self, vectors: SplitVectors, places: Sequence[Place]
    ) -> tuple[dict[str, Floats], str, Mapping[str, int]]:
        """Scores by kind with a note, or nothing with the reason; and the absent videos of the training table."""
        if vectors.split in LEARNT_ON:
            return {}, LEARNT_ON[vectors.split], {}
        stored = in_store(self.train, {video.video_id for video in vectors.videos if video.split == "train"})
        clips = [clip for clip in stored.rows if vectors.has(self._clip(clip))]
        if not clips:
            return {}, "charades.train_clips_uri names no clip of the store's train split", stored.absent
        label_N = np.array([clip.label for clip in clips], dtype=np.int64)
        scores = {}
        for kind in KINDS:
            text_CE = vectors.text(kind, self.class_names)
            clip_NE = vectors.beside_text(kind, map(self._clip, clips))
            head = fit_text_head(clip_NE, text_CE, label_N, self.head, self.seed)
            scores[kind] = head.scores(vectors.beside_text(kind, places), text_CE)
        return scores, f"fitted on {len(clips)} clips of train, encoders frozen", stored.absent

    def _place(self, video: CharadesVideo) -> Place:
        return Place(video.video_id, 0.0, math.inf, self.num_frames)

    def _clip(self, clip: CharadesClip) -> Place:
        return Place(clip.video_id, *clip.span_s, self.num_frames)


def _row(name: str, scores: Mapping[str, Floats], label_VC: NDArray[np.bool_], said: tuple[float, str]) -> MetricRow:
    found = {kind: charades_mean_ap(score_VC, label_VC) for kind, score_VC in scores.items()}
    note = f"{found[OURS][1]} of {label_VC.shape[1]} classes without a video are left out"
    return MetricRow(
        name=name,
        ours=found[OURS][0],
        raw=found[RAW][0],
        chance=said[0],
        count=len(label_VC),
        headline=True,
        note=f"{note}; {said[1]}" if said[1] else note,
    )


def _named(names: Sequence[str], scores: Mapping[str, Floats], label_VC: NDArray[np.bool_]) -> dict[str, Any]:
    columns = {kind: average_precision_per_class(score_VC, label_VC) for kind, score_VC in scores.items()}
    return {
        kind: {name: float(ap) if math.isfinite(ap) else None for name, ap in zip(names, of_class, strict=True)}
        for kind, of_class in columns.items()
    }
