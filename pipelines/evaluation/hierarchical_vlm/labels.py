"""From annotations to targets: the vocabulary, labels of videos, labels of rows, true segments.

Shapes: N videos or rows, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.localisation import Segments, segments_of
from pipelines.evaluation.hierarchical_vlm.records import VideoRecord

BACKGROUND = 0  # class number of rows outside every segment in the frame probe; real classes start at 1


def segment_spans(annotations: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Return (S, 2) the annotated spans in seconds."""
    return np.array([item["segment"] for item in annotations], dtype=np.float64).reshape(-1, 2)


def row_labels(record: VideoRecord, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the class of each sampled row: 0 = background, class c of `names` as c + 1.

    A row belongs to the segment that its centre lies in; where segments overlap, to the shortest one, the first on a
    tie.
    """
    number = {name: i + 1 for i, name in enumerate(names)}
    labels = np.full(len(record.centre_s_N), BACKGROUND, dtype=np.int64)
    spans = segment_spans(record.annotations)
    # Longest first, so that shorter ones overwrite it; of equal ones the first is written last.
    for index in sorted(range(len(spans)), key=lambda i: (spans[i, 0] - spans[i, 1], -i)):
        inside = (record.centre_s_N >= spans[index, 0]) & (record.centre_s_N < spans[index, 1])
        labels[inside] = number[str(record.annotations[index]["label"])]
    return labels


def true_segments(records: Sequence[VideoRecord], names: Sequence[str]) -> Segments:
    """Return the annotated segments of all videos, with class numbers of `names`."""
    number = {name: i for i, name in enumerate(names)}
    return segments_of(
        [
            (record.key, number[str(item["label"])], float(item["segment"][0]), float(item["segment"][1]), 1.0)
            for record in records
            for item in record.annotations
        ]
    )
