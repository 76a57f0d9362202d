"""One video of a store as every evaluation reads it: what the model reads, and the raw features beside it.

Raw are the frozen features that the model read, each encoder's rows divided by their norm so that none outweighs the
others. Both are on the same time grid and leave out the same bad rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hvlm.data.collate import EncoderRows, VideoRows, join_encoders
from hvlm.data.samples import SampleMeta
from pipelines.store.manifest import read_sample


class LoadedVideo(NamedTuple):
    """One video as read: the model's input, the raw rows, the CLIP rows and the metadata of the first encoder."""

    model_input: VideoRows
    raw: VideoRows
    clip: EncoderRows | None
    meta: SampleMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """Where videos are read, and how.

    Args:
        store_uri: of the features.
        encoders: columns of the store in the order of concatenation; `clip` the one whose text tower is known, if any.
        l2_normalise: as in the training's stream.
    """

    store_uri: str
    encoders: tuple[str, ...]
    clip: str | None
    l2_normalise: bool

    def load(self, row: Mapping[str, Any]) -> LoadedVideo:
        """Read the video of a manifest row.

        Raises:
            ValueError: the shard does not hold what the manifest says.
        """
        parts: dict[str, EncoderRows] = {}
        metas: dict[str, SampleMeta] = {}
        for encoder in self.encoders:
            features, meta = read_sample(self.store_uri, row, encoder)
            metas[encoder] = meta
            times_s = np.asarray(meta.timestamps_s, dtype=np.float64)
            parts[encoder] = EncoderRows(features, times_s, meta.clip_s, meta.reach_s)
        ordered = [parts[encoder] for encoder in self.encoders]
        return LoadedVideo(
            join_encoders(ordered, l2_normalise=self.l2_normalise),
            join_encoders(ordered, l2_normalise=True),
            None if self.clip is None else _finite(parts[self.clip]),
            metas[self.encoders[0]],
        )


def _finite(rows: EncoderRows) -> EncoderRows | None:
    good = np.isfinite(rows.features_TD).all(axis=1)
    return replace(rows, features_TD=rows.features_TD[good], times_s=rows.times_s[good]) if good.any() else None
