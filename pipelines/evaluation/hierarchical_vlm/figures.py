"""The figures of HierarchicalVLM's groups of metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from hvlm.metrics.proposals import VideoSegments
from pipelines.evaluation.classification_group import activity_of, ap_figures
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE, VideoRecord
from pipelines.evaluation.metric_table import KINDS, OURS, RAW
from pipelines.evaluation.plots import (
    GREY,
    PALETTE,
    WIDTH,
    bars_svg,
    map_svg,
    principal_components,
    short_label,
    svg_figure,
)
from pipelines.evaluation.results import Figure
from pipelines.evaluation.retrieval_group import recall_figures

_Details = Mapping[str, Any]
_METHODS = {PROBE: "frame probe", HEAD: "head on the pyramid"}


def group_figures(
    records: Sequence[VideoRecord], details: Mapping[str, _Details], num_timelines: int
) -> dict[str, list[Figure]]:
    """Return the figures of each group that has some.

    Args:
        records: the videos of the split.
        details: of each group of metrics.
        num_timelines: videos whose truth and predictions are drawn.
    """
    return {
        "classification": _classification(records, details["classification"]),
        "localisation": _localisation(records, details["localisation"], num_timelines),
        "retrieval": recall_figures(details["retrieval"]),
    }


def _classification(records: Sequence[VideoRecord], tasks: _Details) -> list[Figure]:
    figures = ap_figures(tasks)
    if len(records) >= 3:
        caption = "First two principal components of the video embeddings, coloured by activity or label."
        figures.append(Figure(_map(records), caption))
    return figures


def _map(records: Sequence[VideoRecord]) -> str:
    panels = {}
    for kind in KINDS:
        points, share = principal_components(np.stack([record.kinds[kind].video_D for record in records]))
        panels[f"{kind} ({share:.0%} of the variance)"] = points
    return map_svg(panels, [activity_of(record) or "no label" for record in records])


def _localisation(records: Sequence[VideoRecord], details: _Details, num_timelines: int) -> list[Figure]:
    if not details:
        return []
    figures = []
    for method, said in _METHODS.items():
        columns = {column: details[method]["ap"][column] for column in (OURS, RAW, "floor")}
        svg = bars_svg(details["classes"], columns, f"localisation AP per class, {said}")
        if svg is not None:
            figures.append(Figure(svg, f"Mean AP over tIoU 0.5 to 0.95 per class, {said}."))
    annotated = sorted((record for record in records if record.annotations), key=lambda record: record.video_id)
    for record in annotated[:num_timelines]:
        found = details["found"][record.key]
        lanes = {f"{kind}, {method}": found[method][kind] for method in _METHODS for kind in KINDS}
        drawn = timeline_svg(record, lanes, details["classes"])
        figures.append(Figure(drawn, f"{record.video_id}: truth and the best predictions, fainter = lower score."))
    return figures


Bar = tuple[str, float, float, float]  # label, start_s, end_s, opacity


def timeline_svg(record: VideoRecord, found: Mapping[str, VideoSegments], classes: Sequence[str]) -> str:
    """Return truth and what was found in one video over time, a lane for each of `found`.

    As many of the best predictions as there are true segments, plus two; the fainter, the lower the score.
    """
    lanes: dict[str, list[Bar]] = {
        "truth": [(str(a["label"]), float(a["segment"][0]), float(a["segment"][1]), 1.0) for a in record.annotations]
    }
    lanes |= {name: _best_bars(each, classes, len(record.annotations) + 2) for name, each in found.items()}
    labels = list(dict.fromkeys(bar[0] for bars in lanes.values() for bar in bars))
    colour = {label: PALETTE[i] if i < len(PALETTE) else GREY for i, label in enumerate(labels)}
    with svg_figure(WIDTH, 0.7 + 0.3 * len(lanes) + 0.1 * len(labels), f"timeline-{record.key}") as (figure, done):
        axes = figure.subplots()
        for place, (name, bars) in enumerate(lanes.items()):
            # Predictions overlap, so each has a strip of its own; true segments share one.
            thickness = 0.7 if name == "truth" else 0.7 / max(1, len(bars))
            for depth, (label, start_s, end_s, opacity) in enumerate(bars):
                y = place if name == "truth" else place - 0.35 + (depth + 0.5) * thickness
                axes.barh(y, end_s - start_s, thickness, left=start_s, color=colour[label], alpha=opacity)
        axes.set_yticks(range(len(lanes)), list(lanes))
        axes.invert_yaxis()
        axes.set_xlim(0, record.duration_s)
        axes.set_xlabel("seconds")
        handles: list[Any] = [Patch(color=colour[label], label=short_label(label, 30)) for label in labels]
        figure.legend(handles=handles, fontsize=7, loc="outside lower center", ncols=3)
    return done[0]


def _best_bars(found: VideoSegments, classes: Sequence[str], limit: int) -> list[Bar]:
    best = list(zip(found.label_N, found.span_N2, found.score_N, strict=True))[:limit]
    top = max((float(score) for _, _, score in best), default=1.0)
    return [
        (classes[int(c)], float(span[0]), float(span[1]), 0.25 + 0.75 * float(score) / top) for c, span, score in best
    ]
