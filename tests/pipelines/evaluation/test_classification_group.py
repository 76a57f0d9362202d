"""Probes per task: ours sees the order and raw does not, shuffled labels drop to chance, absent labels are said so."""

from dataclasses import replace

import numpy as np
import torch

from hvlm.metrics.linear_probe import ProbeConfig
from pipelines.evaluation.classification_group import (
    activity_of,
    classification_group,
    label_matrix,
    order_of,
    vocabulary,
)
from pipelines.evaluation.parts import Parts
from tests.pipelines.evaluation.made_records import record, segment

torch.set_num_threads(1)
CONFIG = ProbeConfig(l2_grid=(0.01, 0.1), max_iterations=50)


def _video(index: int, random: np.random.Generator):
    """Two actions in one of two orders; ours knows the order, raw only which actions."""
    pair = [("bounce", "spin"), ("spin", "bounce"), ("slide", "blink"), ("blink", "slide")][index % 4]
    ours = np.eye(4)[index % 4] + 0.1 * random.normal(size=(4, 4))
    raw = np.eye(4)[[0, 0, 2, 2][index % 4]] + 0.1 * random.normal(size=(4, 4))
    return record(f"v{index:03d}", ours, raw, annotations=[segment(pair[0], 0, 2), segment(pair[1], 2, 4)])


def _parts(count: int = 40) -> Parts:
    random = np.random.default_rng(0)
    videos = [_video(index, random) for index in range(3 * count)]
    return Parts(videos[:count], videos[count : 2 * count], videos[2 * count :], "val", "dev videos")


def _values(parts: Parts):
    group = classification_group(parts, CONFIG, knn_k=5, seed=0)
    return {row.name: row for row in group.rows}, group


def test_ours_sees_the_order_and_raw_is_at_the_bag_of_actions():
    rows, group = _values(_parts())
    activity = rows["val/video/linear_probe/activity/hit_at_1"]
    assert activity.ours > 0.95
    assert 0.25 < activity.raw < 0.75
    assert abs(activity.chance - 0.25) < 0.1
    assert rows["val/video/linear_probe/labels/mean_ap"].raw > 0.99
    assert rows["val/video/knn/activity/hit_at_1"].ours > 0.95
    assert (
        rows["val/video/class_distance/activity/separation"].ours
        > rows["val/video/class_distance/activity/separation"].raw
    )
    assert group.details["activity"]["l2"]["ours"]["chosen"] in CONFIG.l2_grid
    assert group.details["labels"]["probability"]["raw"].shape == (40, 4)


def test_shuffled_labels_drop_the_probe_to_chance():
    parts = _parts()
    random = np.random.default_rng(1)
    shuffled = [
        replace(video, annotations=parts.train[i].annotations)
        for video, i in zip(parts.train, random.permutation(40), strict=True)
    ]
    rows, _ = _values(Parts(shuffled, parts.dev, parts.report, "val", ""))
    assert rows["val/video/linear_probe/activity/hit_at_1"].ours < 0.6


def test_no_annotations_and_unseen_activities_are_absent():
    parts = _parts(8)
    bare = [replace(video, annotations=[]) for video in parts.report]
    group = classification_group(replace(parts, report=bare), CONFIG, knn_k=5, seed=0)
    assert group.rows == []
    assert {"labels", "activity"} == {
        part for absent in group.absent for part in ("labels", "activity") if f"/{part}/" in absent.metrics
    }
    unseen = [replace(video, activity="juggling") for video in parts.report]
    group = classification_group(replace(parts, report=unseen), CONFIG, knn_k=5, seed=0)
    assert [absent.why for absent in group.absent] == ["1 activities of val do not occur in train"]


def test_one_label_per_video_is_not_counted_twice():
    parts = _parts(8)
    single = [
        [replace(video, annotations=video.annotations[:1]) for video in part]
        for part in (parts.train, parts.dev, parts.report)
    ]
    group = classification_group(Parts(*single, "val", ""), CONFIG, knn_k=5, seed=0)
    assert not any("/activity/" in row.name for row in group.rows)
    assert not any("top_1" in row.name for row in group.rows)


def test_activity_is_the_sources_word_or_the_order_of_labels():
    video = record("v", np.eye(3), annotations=[segment("b", 1, 2), segment("a", 0, 1), segment("b", 2, 3)])
    assert order_of(video) == ["a", "b"]
    assert activity_of(video) == "a, then b"
    assert activity_of(replace(video, activity="dance")) == "dance"
    assert activity_of(replace(video, annotations=[])) is None


def test_vocabulary_and_matrix():
    none = record("c", np.eye(6))
    one = record("a", np.eye(6), annotations=[segment("spin", 0, 4), segment("blink", 2, 3)])
    two = record("b", np.eye(6), annotations=[segment("spin", 1, 3)])
    names = vocabulary([one, two, none])
    assert names == ["blink", "spin"]
    assert label_matrix([one, two, none], names).tolist() == [[True, True], [False, True], [False, False]]
    assert vocabulary([none]) == []
