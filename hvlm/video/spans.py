"""Annotated spans of a video, and which feature rows they meet."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from hvlm.video.sampling import SAME_INSTANT_S

Spans = list[tuple[float, float]]
"""Half-open (start_s, end_s), in order, apart from each other."""
_DIGITS = 6  # microseconds: what is nearer is the same instant


def merge_spans(spans_s: Iterable[Sequence[float]]) -> Spans:
    """Return the union of spans: equal for equal parts of a video, however many annotations say it.

    Args:
        spans_s: (start_s, end_s) in any order; what lies before 0 is cut off, what has no length is left out.
    """
    merged: Spans = []
    for start, end in sorted((max(0.0, round(float(s), _DIGITS)), round(float(e), _DIGITS)) for s, e in spans_s):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def covered_s(spans_s: Sequence[Sequence[float]], duration_s: float) -> float:
    """Return how many seconds of a video lie in spans.

    Args:
        spans_s: from `merge_spans`.
    """
    return float(sum(max(0.0, min(end, duration_s) - start) for start, end in spans_s))


def meets_spans(
    start_s: npt.NDArray[np.float64], length_s: float, spans_s: Sequence[Sequence[float]]
) -> npt.NDArray[np.bool_]:
    """Return which of the intervals [start, start + length) share more than an instant with a span.

    Args:
        start_s: (R,).
        spans_s: from `merge_spans`.
    """
    if not len(spans_s):
        return np.zeros(len(start_s), np.bool_)
    starts, ends = np.array(spans_s, np.float64).T
    # The first span that ends after the interval's start is the one that begins first of those that may meet it.
    first = np.searchsorted(ends, start_s + SAME_INSTANT_S, side="right")
    begins = np.append(starts, np.inf)[first]
    return np.asarray(begins < start_s + length_s - SAME_INSTANT_S, dtype=np.bool_)
