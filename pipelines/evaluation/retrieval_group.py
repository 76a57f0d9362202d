"""Text <-> video retrieval: summaries with videos, captions with their spans; ours beside raw CLIP and chance.

text_to_video: every video's text is a query (a text that two videos share asks twice), all videos with an equal text
are right answers. video_to_text: every video is a query, the distinct texts are the candidates, one of them right.
Shapes: Q queries, N candidates, E width of a space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows
from hvlm.metrics.retrieval import RetrievalResult, best_ranks, chance_retrieval, summarise_ranks
from pipelines.evaluation.metric_table import KINDS, Absent, GroupResult, MetricRow
from pipelines.evaluation.plots import recall_svg
from pipelines.evaluation.results import Figure

# A block of similarities stays below 2,048 x candidates, whatever the number of queries.
_QUERY_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpace:
    """Video-side embeddings that are compared with text: one for the video, one per caption span; not normalised."""

    video_E: NDArray[np.float32]
    captions_PE: NDArray[np.float32]


class ToldVideo(Protocol):
    """What retrieval knows of a video."""

    @property
    def summary(self) -> str | None: ...

    @property
    def captions(self) -> list[dict[str, Any]]:
        """Each with its `text`."""
        ...

    @property
    def spaces(self) -> Mapping[str, TextSpace]:
        """By kind; a kind without text is missing."""
        ...


TextFeatures = dict[str, dict[str, NDArray[np.float32]]]
"""`{kind: {text: features}}`: every text in the space of a kind."""


def retrieval_group(
    records: Sequence[ToldVideo], split: str, texts: TextFeatures, absent_kinds: dict[str, str]
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
    num_candidates: dict[str, int] = {}
    for level in ("video", "clip"):
        labels = _texts(records, level)
        if len(set(labels)) < 2:
            absent.append(
                Absent(f"{split}/{level}/*/recall_at_k", f"fewer than 2 different {_source(level)} in the split")
            )
            continue
        distinct, inverse = np.unique(np.array(labels), return_inverse=True)
        groups = inverse.astype(np.int64)
        candidate_groups = {"text_to_video": groups, "video_to_text": np.arange(len(distinct))}
        for direction in ("text_to_video", "video_to_text"):
            among = candidate_groups[direction]
            found: dict[str, RetrievalResult] = {}
            for kind in (kind for kind in KINDS if kind in texts):
                videos = _videos(records, level, kind)
                text_of_distinct = np.stack([texts[kind][str(text)] for text in distinct])
                by_text = direction == "text_to_video"
                query, candidate = (text_of_distinct[groups], videos) if by_text else (videos, text_of_distinct)
                rank_Q = ranks_of(query, candidate, groups, among)
                found[kind] = summarise_ranks(rank_Q, len(among))
                ranks[f"{level}/{direction}/{kind}"] = rank_Q
            if found:
                num_candidates[f"{level}/{direction}"] = len(among)
                rows += _rows(f"{split}/{level}/{direction}", level, found, chance_retrieval(groups, among))
    return GroupResult(rows, absent, {"ranks": ranks, "num_candidates": num_candidates})


def ranks_of(
    query_QE: NDArray[Any], candidate_NE: NDArray[Any], group_Q: NDArray[np.int64], group_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (Q,) best ranks by cosine, in blocks of queries; a candidate of the query's group is right."""
    query, candidate = unit_rows(query_QE), unit_rows(candidate_NE)
    blocks = [
        best_ranks(query[start : start + _QUERY_BLOCK] @ candidate.T, group_Q[start : start + _QUERY_BLOCK], group_N)
        for start in range(0, len(query), _QUERY_BLOCK)
    ]
    return np.concatenate(blocks)


def rank_columns(records: Sequence[ToldVideo], details: Mapping[str, Any]) -> list[dict[str, int | None]]:
    """Return `{kind}.{direction}_rank` of each video as a query of its level; None for a video without a summary.

    Args:
        records: of the group.
        details: of its result.
    """
    columns: list[dict[str, int | None]] = [{} for _ in records]
    with_text = [i for i, record in enumerate(records) if record.summary and record.summary.strip()]
    for name, ranks in details.get("ranks", {}).items():
        level, direction, kind = name.split("/")
        if level != "video":
            continue
        for row in columns:
            row[f"{kind}.{direction}_rank"] = None
        for i, rank in zip(with_text, ranks, strict=True):
            columns[i][f"{kind}.{direction}_rank"] = int(rank)
    return columns


def recall_figures(details: Mapping[str, Any]) -> list[Figure]:
    """Return a figure of recall at k for each level and direction."""
    ranks, figures = details.get("ranks", {}), []
    for place in dict.fromkeys(name.rsplit("/", 1)[0] for name in ranks):
        of_kind = {kind: ranks[f"{place}/{kind}"] for kind in KINDS if f"{place}/{kind}" in ranks}
        drawn = recall_svg(of_kind, details["num_candidates"][place], place)
        figures.append(Figure(drawn, f"Recall at k, {place}."))
    return figures


def all_texts(records: Sequence[ToldVideo]) -> list[str]:
    """Return every summary and caption once, sorted."""
    return sorted({text for level in ("video", "clip") for text in _texts(records, level)})


def _source(level: str) -> str:
    return "summaries" if level == "video" else "captions"


def _texts(records: Sequence[ToldVideo], level: str) -> list[str]:
    """Equal after stripping = one group: any video of the group is a right answer."""
    if level == "video":
        return [record.summary.strip() for record in records if record.summary and record.summary.strip()]
    return [str(caption["text"]).strip() for record in records for caption in record.captions]


def _videos(records: Sequence[ToldVideo], level: str, kind: str) -> NDArray[np.float32]:
    if level == "video":
        return np.stack(
            [record.spaces[kind].video_E for record in records if record.summary and record.summary.strip()]
        )
    return np.concatenate([record.spaces[kind].captions_PE for record in records if record.captions])


def _candidates(prefix: str, count: int) -> str:
    if prefix.endswith("video_to_text"):
        return f"{count} candidates, the different texts"
    return f"{count} candidates; every text is a query, all videos with an equal text are right answers"


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
                note=_candidates(prefix, chance.num_candidates),
                **{kind: getattr(result, name) for kind, result in found.items()},
            )
        )
    return rows
