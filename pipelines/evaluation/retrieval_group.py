"""Text <-> video retrieval: summaries with videos, captions with their spans; ours beside raw CLIP and chance.

Shapes: Q queries, N candidates, E width of a space.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows
from hvlm.metrics.retrieval import RetrievalResult, best_ranks, chance_retrieval, summarise_ranks
from pipelines.evaluation.metric_table import Absent, GroupResult, MetricRow
from pipelines.evaluation.records import KINDS, VideoRecord

# A block of similarities stays below 2,048 x candidates, whatever the number of queries.
_QUERY_BLOCK = 2048

TextFeatures = dict[str, dict[str, NDArray[np.float32]]]
"""`{kind: {text: features}}`: every text in the space of a kind."""


def retrieval_group(
    records: Sequence[VideoRecord], split: str, texts: TextFeatures, absent_kinds: dict[str, str]
) -> GroupResult:
    """Return retrieval metrics of one split.

    Args:
        records: the videos of the split.
        split: its name.
        texts: text features by kind and text; a kind that is missing here is absent from the table.
        absent_kinds: why a kind is missing.
    """
    rows: list[MetricRow] = []
    absent = [Absent(f"{kind}: {split}/*/text_to_video/*", why) for kind, why in absent_kinds.items()]
    ranks: dict[str, Any] = {}
    for level in ("video", "clip"):
        labels = _texts(records, level)
        if len(set(labels)) < 2:
            absent.append(
                Absent(f"{split}/{level}/*/recall_at_k", f"fewer than 2 different {_source(level)} in the split")
            )
            continue
        groups = np.unique(np.array(labels), return_inverse=True)[1].astype(np.int64)
        chance = chance_retrieval(groups, groups)
        for direction in ("text_to_video", "video_to_text"):
            found: dict[str, RetrievalResult] = {}
            for kind in (kind for kind in KINDS if kind in texts):
                text_QE = np.stack([texts[kind][text] for text in labels])
                video_QE = _videos(records, level, kind)
                query, candidate = (text_QE, video_QE) if direction == "text_to_video" else (video_QE, text_QE)
                rank_Q = ranks_of(query, candidate, groups)
                found[kind] = summarise_ranks(rank_Q, len(groups))
                ranks[f"{level}/{direction}/{kind}"] = rank_Q
            if found:
                rows += _rows(f"{split}/{level}/{direction}", level, found, chance)
    return GroupResult(rows, absent, {"ranks": ranks})


def ranks_of(query_QE: NDArray[Any], candidate_NE: NDArray[Any], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (Q,) best ranks by cosine, in blocks of queries; queries and candidates carry the same groups."""
    query, candidate = unit_rows(query_QE), unit_rows(candidate_NE)
    blocks = [
        best_ranks(query[start : start + _QUERY_BLOCK] @ candidate.T, groups[start : start + _QUERY_BLOCK], groups)
        for start in range(0, len(query), _QUERY_BLOCK)
    ]
    return np.concatenate(blocks)


def all_texts(records: Sequence[VideoRecord]) -> list[str]:
    """Return every summary and caption once, sorted."""
    return sorted({text for level in ("video", "clip") for text in _texts(records, level)})


def _source(level: str) -> str:
    return "summaries" if level == "video" else "captions"


def _texts(records: Sequence[VideoRecord], level: str) -> list[str]:
    """Equal after stripping = one group: any video of the group is a right answer."""
    if level == "video":
        return [record.summary.strip() for record in records if record.summary and record.summary.strip()]
    return [str(caption["text"]).strip() for record in records for caption in record.captions]


def _videos(records: Sequence[VideoRecord], level: str, kind: str) -> NDArray[np.float32]:
    if level == "video":
        return np.stack(
            [record.spaces[kind].video_E for record in records if record.summary and record.summary.strip()]
        )
    return np.concatenate([record.spaces[kind].captions_PE for record in records if record.captions])


def _rows(prefix: str, level: str, found: dict[str, RetrievalResult], chance: RetrievalResult) -> list[MetricRow]:
    rows = []
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank"):
        rows.append(
            MetricRow(
                name=f"{prefix}/{name}",
                chance=getattr(chance, name),
                count=chance.num_queries,
                unit=_source(level),
                better="lower" if name == "median_rank" else "higher",
                headline=level == "video" and name in ("recall_at_1", "recall_at_5"),
                note=f"{chance.num_candidates} candidates; equal texts are all right answers",
                **{kind: getattr(result, name) for kind, result in found.items()},
            )
        )
    return rows
