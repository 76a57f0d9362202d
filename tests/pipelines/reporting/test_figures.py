"""Figures: valid SVG in the page's colour, names escaped, nothing where there is nothing to draw."""

import math
import xml.etree.ElementTree as ElementTree

from hvlm.metrics.comparison import Difference
from pipelines.reporting.figures import MAX_POINTS, Bar, differences_svg, methods_svg, run_curves_svg, thinned

HOSTILE = "<script>alert(1)</script>"


def _check(svg):
    ElementTree.fromstring(svg)
    assert "currentColor" in svg and "<script" not in svg and "#010203" not in svg
    return svg


def test_curves_of_many_runs_have_a_colour_per_method():
    curves = {"train/loss": ([1, 2], [2.0, 1.0]), "dev/loss": ([2], [1.5])}
    svg = _check(run_curves_svg("loss", [(HOSTILE, curves), (HOSTILE, curves), ("_other", curves)]))
    assert svg.count("&lt;script") == 1 and "_other" in svg and "dev/loss" in svg
    assert run_curves_svg("loss", [("a", {})]) is None


def test_long_curves_keep_their_ends():
    kept = thinned(10_000)
    assert (kept[0], kept[-1], len(kept)) == (0, 9_999, MAX_POINTS)
    assert kept == sorted(set(kept)) and thinned(3) == [0, 1, 2]


def test_bars_with_and_without_a_deviation():
    bars = [Bar("one", 0.5, math.nan, [0.5], False), Bar(HOSTILE, 0.4, 0.1, [0.3, 0.5], True)]
    svg = _check(methods_svg("m", bars, {"raw": (0.2, 0.2), "chance": (0.1, 0.12)}))
    assert "#d6001c" in svg and "raw" in svg
    assert "#d6001c" not in methods_svg("m", bars[:1], {})
    assert methods_svg("m", [], {}) is None


def test_differences():
    _check(differences_svg("d", [(HOSTILE, Difference(0.1, -0.1, 0.3, 9))]))
    assert differences_svg("d", []) is None
