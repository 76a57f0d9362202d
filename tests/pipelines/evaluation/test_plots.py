"""Figures: valid SVG in the page's colour, distinct ids, labels escaped, nothing where there is nothing to draw."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from pipelines.evaluation.plots import bars_svg, curves_svg, map_svg, principal_components, recall_svg


def _check(svg: str) -> None:
    ElementTree.fromstring(svg)
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_curves():
    _check(curves_svg({"loss": {"train/loss/total": ([1, 2], [0.5, 0.25])}, "empty": {}}))
    assert curves_svg({"loss": {}}) is None
    assert curves_svg({}) is None


def test_bars_show_present_classes_and_say_when_some_are_left_out():
    names = [f"class {i}" for i in range(40)]
    values = np.linspace(0, 1, 40)
    svg = bars_svg(names, {"ours": values, "raw": values}, "AP")
    _check(svg)
    assert "best and worst 15 of 40" in svg
    assert bars_svg(["a"], {"ours": np.array([np.nan])}, "AP") is None


def test_labels_are_escaped_and_no_formula():
    svg = bars_svg(["<script>$x^$"], {"ours": np.array([0.5])}, "AP")
    _check(svg)
    assert "<script>" not in svg
    assert "&lt;script&gt;$x^$" in svg


def test_recall_and_map():
    recall = recall_svg({"ours": np.array([1, 30]), "raw": np.array([2, 30])}, 30, "video/text_to_video")
    _check(recall)
    assert "mathdefault" not in recall
    assert ">20</text>" in recall
    many = recall_svg({f"_method {i}": np.array([1, 2]) for i in range(11)}, 2, "many")
    _check(many)
    assert all(f"_method {i}<" in many for i in range(11))  # matplotlib would hide names that begin with _
    points = np.random.default_rng(0).normal(size=(5, 2))
    _check(map_svg({"ours": points, "raw": points}, ["a", "b", "a", "b", "c"]))


def test_principal_components_keep_the_two_largest_directions():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    points, share = principal_components(rows)
    assert share == 1.0
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)
    assert principal_components(np.ones((3, 2)))[1] == 1.0
