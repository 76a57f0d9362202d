"""The report's figures as inline SVG. Text and axes take the page's colour, so that they read on dark and on light."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hvlm.metrics.classification import unit_rows
from pipelines.evaluation.metric_table import OURS, RAW

# Inches of 72 px: nearly the width of a phone, so that text of 8 px stays readable there.
WIDTH = 6.2
# Written as this colour, replaced by the page's text colour in the SVG.
_INK = "#010203"
COLOURS = {OURS: "#2f7fd6", RAW: "#e08a1e", "chance": "#8a8a8a", "floor": "#a06bd0"}
PALETTE = (
    "#2f7fd6",
    "#e08a1e",
    "#2ca25f",
    "#d64550",
    "#a06bd0",
    "#8c6d4f",
    "#d66bb0",
    "#7a8a3a",
    "#22a8b8",
    "#b8860b",
)
MANY_COLOURS = (*PALETTE, "#5b5bd6", "#c2410c", "#0f766e", "#be185d", "#9bb53c", "#94a3b8")
"""For lines of many methods; the seventeenth looks like the first again."""
GREY = "#9a9a9a"
Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]


@contextmanager
def svg_figure(width: float, height: float, salt: str) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure and a list that holds its SVG afterwards; `salt` keeps the ids of several SVGs on a page apart."""
    style: Any = {
        key: _INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    }
    # parse_math off: a label with dollar signs is a label, not a formula.
    style |= {"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False}
    style |= {"font.family": "sans-serif", "font.size": 9.0, "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        done: list[str] = []
        yield figure, done
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        svg = buffer.getvalue()
        done.append(svg[svg.index("<svg") :].replace(_INK, "currentColor"))


def curves_svg(panels: Mapping[str, Curves]) -> str | None:
    """Return training curves, one panel per title; None when there is nothing to draw."""
    drawn = {title: curves for title, curves in panels.items() if curves}
    if not drawn:
        return None
    num_rows = -(-len(drawn) // 2)
    with svg_figure(WIDTH, 2.6 * num_rows, "curves") as (figure, done):
        places = figure.subplots(num_rows, 2, squeeze=False).ravel()
        for axes in places[len(drawn) :]:
            axes.set_axis_off()
        for axes, (title, curves) in zip(places, drawn.items(), strict=False):
            for colour, (name, (steps, values)) in zip(PALETTE, curves.items(), strict=False):
                marker = "." if len(steps) < 30 else None
                axes.plot(steps, values, color=colour, label=name, linewidth=1.2, marker=marker)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.legend(fontsize=7)
    return done[0]


def bars_svg(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]], title: str) -> str | None:
    """Return horizontal bars per class, best of the first column first, at most 30 classes; None without a value."""
    values = next(iter(columns.values()))
    present = np.flatnonzero(~np.isnan(values))
    if len(present) == 0:
        return None
    order = present[np.argsort(-values[present], kind="stable")]
    shown = order if len(order) <= 30 else np.concatenate([order[:15], order[-15:]])
    height = 1.2 + 0.16 * len(columns) * len(shown)
    with svg_figure(WIDTH, height, f"bars-{title}") as (figure, done):
        axes = figure.subplots()
        thickness = 0.8 / len(columns)
        place = np.arange(len(shown))
        for index, (column, of_class) in enumerate(columns.items()):
            colour, label = _colour(column, index), short_label(column, 60)
            axes.barh(place + index * thickness, of_class[shown], thickness, color=colour, label=label)
        axes.set_yticks(place + 0.4 - thickness / 2, [short_label(names[i], 34) for i in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(title if len(shown) == len(order) else f"{title} (best and worst 15 of {len(order)})")
        figure.legend(fontsize=8, loc="outside lower center", ncols=len(columns))
    return done[0]


def recall_svg(ranks: Mapping[str, NDArray[np.int64]], num_candidates: int, title: str) -> str:
    """Return recall at k over k (log scale) for each of `ranks`, beside the line of chance with one right answer."""
    below = len(ranks) if len(ranks) > 2 else 0
    with svg_figure(4.6, 2.8 + 0.2 * below / legend_columns(ranks), f"recall-{title}") as (figure, done):
        axes = figure.subplots()
        k = np.arange(1, num_candidates + 1)
        for index, (kind, rank_Q) in enumerate(ranks.items()):
            axes.step(
                k,
                np.searchsorted(np.sort(rank_Q), k, side="right") / len(rank_Q),
                where="post",
                color=_colour(kind, index),
                label=short_label(kind, 60),
            )
        axes.plot(k, k / num_candidates, color=COLOURS["chance"], linestyle="--", label="chance (one right answer)")
        axes.set_xscale("log")
        # Plain numbers: the logarithmic formatter writes formulas, and formulas are off.
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000) if tick <= num_candidates]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("k")
        axes.set_ylabel("recall at k")
        axes.set_title(title)
        if len(ranks) <= 2:
            axes.legend(fontsize=7)
        else:  # many lines leave no room between them
            figure.legend(fontsize=7, loc="outside lower center", ncols=legend_columns(ranks))
    return done[0]


def map_svg(panels: Mapping[str, NDArray[np.floating]], names: Sequence[str], salt: str = "map") -> str:
    """Return a map of samples, coloured by `names`.

    The ten most frequent names have a colour of their own, the others are grey.

    Args:
        panels: title -> (N, 2) a place for each sample; they stand side by side.
        names: of each sample.
        salt: tells several maps on a page apart.
    """
    ranked = sorted(set(names), key=lambda name: (-names.count(name), name))
    colour = dict(zip(ranked, PALETTE, strict=False))
    with svg_figure(WIDTH, 4.4, salt) as (figure, done):
        for axes, (title, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes.scatter(points[:, 0], points[:, 1], s=18, c=[colour.get(name, GREY) for name in names])
            axes.set_title(title)
            axes.set_xticks([])
            axes.set_yticks([])
        shown = ranked[: len(PALETTE)]
        handles: list[Any] = [
            Line2D([], [], marker="o", linestyle="", color=colour[name], label=short_label(name, 70)) for name in shown
        ]
        columns = 1 if max(map(len, shown)) > 25 else 3
        figure.legend(handles=handles, fontsize=7, loc="outside lower center", ncols=columns)
    return done[0]


def principal_components(rows_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Return (N, 2) the first two principal components of the unit rows, and their share of the variance.

    A linear map, chosen over t-SNE because it is exact, repeatable and takes no time (t-SNE took 20 s of a busy
    machine).
    """
    unit = unit_rows(rows_ND)
    left, singular, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    points = np.zeros((len(unit), 2))
    points[:, : min(2, len(singular))] = (left * singular)[:, :2]
    total = float(np.sum(singular**2))
    return points, float(np.sum(singular[:2] ** 2)) / total if total > 0 else 1.0


def legend_columns(names: Iterable[str]) -> int:
    """Return in how many columns a legend below a figure fits."""
    return 3 if max(map(len, names), default=0) <= 22 else 1


def _colour(column: str, index: int) -> str:
    return COLOURS.get(column) or MANY_COLOURS[index % len(MANY_COLOURS)]


def short_label(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters that a legend shows: matplotlib hides what begins with _."""
    text = f"\u200b{text}" if text.startswith("_") else text
    return text if len(text) <= limit else text[: limit - 1] + "…"
