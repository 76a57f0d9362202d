"""The page's figures by section, each with a caption that says what it is drawn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipelines.evaluation.metric_table import OURS, RAW
from pipelines.evaluation.plots import bars_svg, recall_svg, short_label
from pipelines.reporting.comparison import MetricComparison
from pipelines.reporting.figures import MAX_POINTS, Bar, differences_svg, methods_svg, run_curves_svg
from pipelines.reporting.methods import Method
from pipelines.reporting.samples import DIRECTIONS, num_candidates, ranks

Figure = dict[str, Any]
Section = dict[str, Any]


def metric_figures(metric: MetricComparison, flagged: set[str]) -> list[Figure]:
    """Return the bars of one metric and its differences to the baseline."""
    bars = [
        Bar(name, cell.spread.mean, cell.spread.std, [value for _, _, value in cell.by_run], name in flagged)
        for name, cell in metric.cells.items()
        if cell.by_run
    ]
    differences = [(name, cell.difference) for name, cell in metric.cells.items() if cell.difference is not None]
    return [
        *_figure(
            methods_svg(metric.name, bars, metric.references),
            "Mean of each method, a dot per run, ± standard deviation over seeds where there are two or more.",
        ),
        *_figure(
            differences_svg(f"{metric.name}: difference", differences),
            "Difference from the baseline with its 95 % interval.",
        ),
    ]


def curve_section(methods: Sequence[Method]) -> Section:
    """Return the training's curves and collapse monitors, a figure per panel."""
    runs = [(method.name, run.curves) for method in methods for run in method.runs]
    panels = dict.fromkeys(title for _, curves in runs for title in curves)
    figures: list[Figure] = []
    for title in panels:
        drawn = run_curves_svg(title, [(name, curves.get(title, {})) for name, curves in runs])
        figures += _figure(drawn, f"{title}: as logged, a line per run, at most {MAX_POINTS} points of each.")
    return {"title": "Training and collapse monitors", "figures": figures}


def recall_section(methods: Sequence[Method]) -> Section:
    """Return recall at k of every method, its runs pooled, for each split and direction."""
    figures: list[Figure] = []
    for split in dict.fromkeys(split for method in methods for run in method.runs for split in run.samples):
        for direction in DIRECTIONS:
            found = {method.name: _pooled_ranks(method, split, direction) for method in methods}
            found = {name: rank_Q for name, rank_Q in found.items() if len(rank_Q)}
            frames = [run.samples[split] for method in methods for run in method.runs if split in run.samples]
            if found:
                most = max(num_candidates(frame, direction) for frame in frames)
                drawn = recall_svg(found, most, f"{split}/video/{direction}")
                figures += _figure(drawn, f"Recall at k on {split}, {direction}, over the queries of all runs.")
    return {"title": "Retrieval", "figures": figures}


def per_class_section(methods: Sequence[Method], baseline: str) -> Section:
    """Return AP per class of every method beside the baseline's (or beside raw), mean over seeds."""
    figures: list[Figure] = []
    rival = next((method for method in methods if method.name == baseline), None)
    for method in methods:
        if method is rival:
            continue
        for place in _per_class_places(method):
            other, name = (method, RAW) if rival is None else (rival, rival.name)
            classes, ours = _per_class(method, place, OURS)
            labels, values = _per_class(other, place, RAW if rival is None else OURS)
            known = dict(zip(labels, values.tolist(), strict=True))
            theirs = np.array([known.get(label, np.nan) for label in classes])
            title = f"{'/'.join(place)}: {short_label(method.name, 40)}"
            drawn = bars_svg(classes, {method.name: ours, name: theirs}, title)
            figures += _figure(drawn, f"AP per class of {method.name} beside {name}, mean over seeds.")
    return {"title": "AP per class", "figures": figures}


def _figure(svg: str | None, caption: str) -> list[Figure]:
    # Our own figure: matplotlib has escaped the labels in it.
    return [] if svg is None else [{"svg": Markup(svg), "caption": caption}]  # noqa: S704


def _pooled_ranks(method: Method, split: str, direction: str) -> NDArray[np.int64]:
    pooled = [
        rank for run in method.runs if split in run.samples for rank in ranks(run.samples[split], OURS, direction)
    ]
    return np.array(pooled, dtype=np.int64)


def _per_class_places(method: Method) -> list[tuple[str, str]]:
    """(split, task) of the per-class figures of the method's first run, those of the wanted splits."""
    document = method.runs[0].document
    return [(split, task) for split in document["splits"] for task in document["per_class_ap"].get(split, {})]


def _per_class(method: Method, place: tuple[str, str], column: str) -> tuple[list[str], NDArray[np.float64]]:
    """Return (class names, (C,) mean AP over the runs), classes of the first run; NaN where a run has none."""
    split, task = place
    found = [run.document["per_class_ap"].get(split, {}).get(task, {}).get(column, {}) for run in method.runs]
    values = [[np.nan if of.get(name) is None else float(of[name]) for name in found[0]] for of in found]
    return list(found[0]), np.mean(np.array(values, dtype=np.float64), axis=0)
