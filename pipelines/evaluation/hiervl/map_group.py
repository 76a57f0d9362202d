"""The embedding map: clips and whole videos of a split in two dimensions, and how well labels part in the space itself.

The map is t-SNE, which can show clusters that are not there: silhouette and neighbour purity beside it are of the
original vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows
from hvlm.metrics.embedding_map import tsne
from hvlm.metrics.embedding_quality import chance_purity, neighbour_purity, silhouette
from pipelines.evaluation.classification_group import activity_of
from pipelines.evaluation.hiervl.groups import Outcome, StoreGroup
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, OURS, RAW, Absent, MetricRow
from pipelines.evaluation.plots import map_svg
from pipelines.evaluation.results import Figure

_LEAST = 10  # points below which neighbours say nothing
_NO_ACTIVITY = "no activity"


@dataclass(frozen=True, slots=True)
class MapGroup(StoreGroup):
    """Captions' clips and whole videos, at most `num_points` of each, evenly over the split. `seed`: of the map."""

    num_points: int
    num_frames: int
    seed: int
    name: str = "embedding_map"
    title: str = "Embedding map"
    beside_text: bool = False

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return the map coloured by activity and by level, and the quality of both labellings."""
        prefix = f"{vectors.split}/embedding_map"
        chosen = self._points(vectors)
        if len(chosen) < _LEAST:
            return Outcome(absent=[Absent(f"{prefix}/*", f"{len(chosen)} clips and videos, {_LEAST} are needed")])
        places = [place for place, _ in chosen]
        unit = {kind: unit_rows(vectors.features(kind, places)) for kind in KINDS}
        levels = ["video" if place.num_frames is None else "clip" for place in places]
        labellings = {"level": levels, "activity": [activity for _, activity in chosen]}
        rows = []
        for name, labels in labellings.items():
            if len(set(labels)) > 1:
                # Of activities, at the level of videos: a clip shows a part of one.
                only = [i for i, level in enumerate(levels) if name == "level" or level == "video"]
                rows += _quality(f"{prefix}/{name}", unit, np.array(only), labels)
        maps = {kind: tsne(unit_NE, seed=self.seed) for kind, unit_NE in unit.items()}
        figures = [
            Figure(map_svg(maps, labels, f"map-{vectors.split}-{name}"), f"t-SNE of clips and videos, by {name}.")
            for name, labels in labellings.items()
        ]
        return Outcome(rows=rows, figures=figures)

    def _points(self, vectors: SplitVectors) -> list[tuple[Place, str]]:
        clips: list[tuple[Place, str]] = []
        videos: list[tuple[Place, str]] = []
        for video in vectors.reported:
            activity = activity_of(video) or _NO_ACTIVITY
            clips += [(place, activity) for place in video.caption_places(self.num_frames)]
            videos.append((video.segment(), activity))
        kept = [[point for point in points if vectors.has(point[0])] for points in (clips, videos)]
        return [point for points in kept for point in _evenly(points, self.num_points)]


def _evenly(points: Sequence[tuple[Place, str]], limit: int) -> list[tuple[Place, str]]:
    step = max(1, -(-len(points) // limit))
    return list(points[::step])


def _quality(
    name: str, unit: dict[str, NDArray[np.float64]], only: NDArray[np.int64], labels: Sequence[str]
) -> list[MetricRow]:
    label_N = np.unique(np.array(labels)[only], return_inverse=True)[1].astype(np.int64)
    if len(only) < _LEAST or len(np.unique(label_N)) < 2:
        return []
    of_kind = {kind: unit_NE[only] for kind, unit_NE in unit.items()}
    # Levels should not part: one space serves both. Of activities, the more they part the better.
    better = "higher" if name.endswith("activity") else "neither"
    found = {kind: (silhouette(x_NE, label_N), neighbour_purity(x_NE, label_N)) for kind, x_NE in of_kind.items()}
    chances = (0.0, chance_purity(label_N))
    return [
        MetricRow(
            name=f"{name}/{metric}",
            ours=found[OURS][i],
            raw=found[RAW][i],
            chance=chances[i],
            count=len(only),
            unit="videos" if better == "higher" else "clips and videos",
            better=better,  # type: ignore[arg-type]
            note="in the original space, cosine distance",
        )
        for i, metric in enumerate(("silhouette", "neighbour_purity"))
    ]
