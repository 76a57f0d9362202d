"""Figures of HierarchicalVLM: maps and timelines, distinct ids, nothing where there is nothing to draw."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from hvlm.metrics.proposals import VideoSegments
from pipelines.evaluation.hierarchical_vlm.figures import group_figures, timeline_svg
from tests.pipelines.evaluation.made_records import record, segment

EMPTY = VideoSegments(np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))
NONE = {"classification": {}, "localisation": {}, "retrieval": {}}


def test_map_and_timeline():
    random = np.random.default_rng(0)
    truth = [segment("spin", 1, 3)]
    records = [record(f"v{i}", random.normal(size=(5, 4)), annotations=truth) for i in range(5)]
    ElementTree.fromstring(group_figures(records, NONE, 0)["classification"][0].svg)
    assert group_figures(records[:2], NONE, 0)["classification"] == []
    found = {"ours": VideoSegments(np.array([0]), np.array([[1.0, 3.0]]), np.array([0.9])), "raw": EMPTY}
    ElementTree.fromstring(timeline_svg(records[0], found, ["spin"]))


def test_two_figures_on_a_page_share_no_referenced_ids():
    random = np.random.default_rng(0)
    records = [record(f"v{i}", random.normal(size=(5, 4)), annotations=[segment("spin", 1, 3)]) for i in range(2)]
    svgs = [timeline_svg(video, {"ours": EMPTY, "raw": EMPTY}, ["spin"]) for video in records]
    first, second = (set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) for svg in svgs)
    assert first
    assert not first & second
