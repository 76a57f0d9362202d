"""The page's own figures: curves of many runs, one bar per method, differences with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from hvlm.metrics.comparison import Difference
from pipelines.evaluation.plots import (
    COLOURS,
    GREY,
    MANY_COLOURS,
    PALETTE,
    WIDTH,
    Curves,
    legend_columns,
    short_label,
    svg_figure,
)

_LINES = ("-", "--", ":")
# A curve is drawn with at most so many points: more are not seen, and 30 runs would make a page of many megabytes.
MAX_POINTS = 200
_FLAGGED = "#d6001c"
_BAR_INCHES = 0.3


class Bar(NamedTuple):
    """One method: mean, deviation over seeds (NaN for one run), the value of each run, whether it is flagged."""

    name: str
    mean: float
    std: float
    values: Sequence[float]
    flagged: bool


def run_curves_svg(title: str, runs: Sequence[tuple[str, Curves]]) -> str | None:
    """Return the curves of one panel, a colour per method and a line per run; None without a curve.

    Args:
        title: of the panel.
        runs: (method, curves) of each run; a second and third metric of a panel are dashed and dotted.
    """
    methods = list(dict.fromkeys(name for name, curves in runs if curves))
    if not methods:
        return None
    metrics = list(dict.fromkeys(metric for _, curves in runs for metric in curves))
    kinds = metrics if len(metrics) > 1 else []
    columns = legend_columns([*methods, *kinds])
    with svg_figure(WIDTH, 3.0 + 0.2 * len(methods) / columns, f"curves-{title}") as (figure, done):
        axes = figure.subplots()
        for name, curves in runs:
            for metric, (steps, values) in curves.items():
                kept = thinned(len(steps))
                axes.plot(
                    [steps[i] for i in kept],
                    [values[i] for i in kept],
                    color=MANY_COLOURS[methods.index(name) % len(MANY_COLOURS)],
                    linestyle=_LINES[metrics.index(metric) % len(_LINES)],
                    linewidth=1.1,
                    marker="." if len(kept) < 30 else None,
                )
        for i, name in enumerate(methods):
            axes.plot([], [], color=MANY_COLOURS[i % len(MANY_COLOURS)], label=short_label(name, 70))
        for i, metric in enumerate(kinds):
            axes.plot([], [], color=GREY, linestyle=_LINES[i % len(_LINES)], label=metric)
        axes.set_title(title)
        axes.set_xlabel("step")
        figure.legend(fontsize=7, loc="outside lower center", ncols=columns)
    return done[0]


def methods_svg(title: str, bars: Sequence[Bar], references: Mapping[str, tuple[float, float]]) -> str | None:
    """Return a bar per method with its deviation over seeds and a dot per run; raw, floor and chance as lines."""
    if not bars:
        return None
    with svg_figure(WIDTH, 1.3 + _BAR_INCHES * len(bars), f"methods-{title}") as (figure, done):
        axes = figure.subplots()
        for place, bar in enumerate(bars):
            axes.barh(place, bar.mean, 0.6, color=_FLAGGED if bar.flagged else PALETTE[0], alpha=0.75)
            if not math.isnan(bar.std):
                axes.errorbar(bar.mean, place, xerr=bar.std, color=GREY, capsize=3, linewidth=1.4)
            axes.plot(bar.values, [place] * len(bar.values), ".", color=GREY, markersize=5)
        for column, (low, high) in references.items():
            axes.axvline(low, color=COLOURS[column], linestyle="--", linewidth=1.2, label=column)
            axes.axvspan(low, high, color=COLOURS[column], alpha=0.3, linewidth=0)  # where the runs' own differ
        _name_rows(axes, [bar.name for bar in bars], title)
        if references:
            figure.legend(fontsize=8, loc="outside lower center", ncols=len(references))
    return done[0]


def differences_svg(title: str, differences: Sequence[tuple[str, Difference]]) -> str | None:
    """Return the difference of each method to the baseline with its 95 % interval; None where there is none."""
    if not differences:
        return None
    with svg_figure(WIDTH, 1.0 + _BAR_INCHES * len(differences), f"differences-{title}") as (figure, done):
        axes = figure.subplots()
        axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1.0)
        for place, (_, found) in enumerate(differences):
            axes.plot([found.low, found.high], [place, place], color=PALETTE[0], linewidth=2.0, solid_capstyle="butt")
            axes.plot([found.mean], [place], "o", color=PALETTE[0], markersize=5)
        _name_rows(axes, [name for name, _ in differences], title)
        axes.set_ylim(len(differences) - 0.5, -0.5)
    return done[0]


def thinned(count: int) -> list[int]:
    """Return the places of at most `MAX_POINTS` points spread evenly over a curve, its ends among them."""
    if count <= MAX_POINTS:
        return list(range(count))
    return [i * (count - 1) // (MAX_POINTS - 1) for i in range(MAX_POINTS)]


def _name_rows(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), [short_label(name, 34) for name in names])
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
