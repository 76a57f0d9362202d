"""Looks up the vectors of places and texts, ours and raw, for the groups of metrics of one split.

Shapes: N places or texts, W width of a kind of features, E width of a space that has texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows
from pipelines.evaluation.hiervl.places import Floats32, Place, VideoVectors
from pipelines.evaluation.metric_table import RAW
from pipelines.evaluation.retrieval_group import TextFeatures


@dataclass(frozen=True)
class SplitVectors:
    """What groups measure one split with.

    Args:
        split: that is reported on.
        videos: all embedded videos, those of train and dev too.
        texts: vectors of the texts of the split and of all groups, not normalised.
        clip_columns: which columns of the raw features are those of the encoder that has a text tower.
    """

    split: str
    videos: Sequence[VideoVectors]
    texts: TextFeatures
    clip_columns: slice

    @cached_property
    def reported(self) -> list[VideoVectors]:
        """The videos of the split."""
        return [video for video in self.videos if video.split == self.split]

    @cached_property
    def reported_ids(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(video.video_id for video in self.reported)

    @cached_property
    def _by_id(self) -> dict[str, VideoVectors]:
        return {video.video_id: video for video in self.videos}

    def has(self, place: Place) -> bool:
        """Return whether a place was embedded: not where its video has no row of features there."""
        video = self._by_id.get(place.video_id)
        return video is not None and place in video.vectors[RAW]

    def features(self, kind: str, places: Iterable[Place]) -> Floats32:
        """Return (N, W) what a head reads of places: raw with all encoders, not normalised."""
        return np.stack([self._by_id[place.video_id].vectors[kind][place] for place in places])

    def beside_text(self, kind: str, places: Iterable[Place]) -> Floats32:
        """Return (N, E) vectors of places that may be compared with `text`, not normalised."""
        features = self.features(kind, places)
        return features[:, self.clip_columns] if kind == RAW else features

    def text(self, kind: str, texts: Iterable[str]) -> Floats32:
        """Return (N, E) vectors of texts, not normalised."""
        return np.stack([self.texts[kind][text] for text in texts])

    def cosines(self, kind: str, texts: Sequence[str], places: Sequence[Place]) -> NDArray[np.float64]:
        """Return (texts, places) cosines."""
        return unit_rows(self.text(kind, texts)) @ unit_rows(self.beside_text(kind, places)).T
