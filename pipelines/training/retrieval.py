"""Text <-> video retrieval on the dev split, for a system's validation.

Shapes: N rows, E joint space.
"""

from typing import Any

import numpy as np

from hvlm.metrics.retrieval import best_ranks, summarise_ranks

Array = np.ndarray[Any, Any]


def retrieval_figures(prefix: str, video: Array, text: Array, group: Array) -> dict[str, float]:
    """Return recall at 1 and 5 and the median rank in both directions, by names below `prefix`.

    A query's right answers are all videos with an equal text. Empty when no row has a text or a vector is not finite.

    Args:
        prefix: split and level, e.g. `dev/video`.
        video: (N, E) unit vectors. text: (N, E), row n tells of video n.
        group: (N,) equal for equal texts; -1 for a row without text.
    """
    known = group >= 0
    if not known.any() or not (np.isfinite(video).all() and np.isfinite(text).all()):
        return {}
    videos = group[known]
    texts, first = np.unique(videos, return_index=True)  # a text that several videos share is one candidate
    similarity = text[known][first] @ video[known].T
    metrics: dict[str, float] = {}
    ranks = {
        "text_to_video": best_ranks(similarity, texts, videos),
        "video_to_text": best_ranks(similarity.T, videos, texts),
    }
    for direction, best in ranks.items():
        result = summarise_ranks(best, len(videos) if direction == "text_to_video" else len(texts))
        base = f"{prefix}/{direction}"
        metrics |= {f"{base}/recall_at_1": result.recall_at_1, f"{base}/recall_at_5": result.recall_at_5}
        metrics[f"{base}/median_rank"] = result.median_rank
    return metrics
