"""The map: both colourings, quality in the original space, nothing for a handful of points."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from pipelines.evaluation.hiervl.map_group import MapGroup
from pipelines.evaluation.hiervl.places import Place
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video


def _videos(count):
    random = np.random.default_rng(0)
    for i in range(count):
        name, caption = f"v{i}", [{"text": "x", "segment": (0.0, 1.0)}]
        vectors = {Place(name, 0.0, 10.0): np.eye(6)[i % 2], Place(name, 0.0, 1.0, 2): np.eye(6)[2 + i % 2]}
        noisy = {place: vector + 0.01 * random.normal(size=6) for place, vector in vectors.items()}
        yield video(name, noisy, captions=caption, activity=f"activity {i % 2}")


def test_map_and_quality():
    outcome = MapGroup(20, 2, 0).measure(split_vectors(list(_videos(12)), {}, 6))
    assert [figure.caption[-8:] for figure in outcome.figures] == ["y level.", "ctivity."]
    for figure in outcome.figures:
        ElementTree.fromstring(figure.svg)
    found = {row.name: row for row in outcome.rows}
    activity = found["val/embedding_map/activity/neighbour_purity"]
    assert (activity.count, activity.better) == (12, "higher")
    assert activity.ours < 0.6  # ten of eleven neighbours: the five alike and five others
    assert found["val/embedding_map/activity/silhouette"].ours > 0.9
    assert found["val/embedding_map/level/silhouette"].better == "neither"


def test_points_are_taken_evenly():
    group, vectors = MapGroup(4, 2, 0), split_vectors(list(_videos(12)), {}, 6)
    assert [place.video_id for place, _ in group._points(vectors)] == ["v0", "v3", "v6", "v9"] * 2


def test_a_handful_is_no_map():
    outcome = MapGroup(20, 2, 0).measure(split_vectors(list(_videos(3)), {}, 6))
    assert "6 clips and videos" in outcome.absent[0].why and not outcome.figures
