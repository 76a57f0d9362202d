"""Localisation: oracle proposals score 1, floor and chance stand below, absent segments are said to be absent."""

import numpy as np
import torch

from hvlm.metrics.linear_probe import ProbeConfig
from hvlm.metrics.proposals import ProposalConfig, VideoSegments, propose_segments
from pipelines.evaluation.hierarchical_vlm.localisation_group import (
    HeadFit,
    fit_frame_probes,
    localisation_group,
    within_rows,
)
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE, LocalisedVideo
from pipelines.evaluation.metric_table import Absent
from pipelines.evaluation.parts import Parts
from tests.pipelines.evaluation.made_records import record, segment

torch.set_num_threads(1)
CONFIG = ProbeConfig(l2_grid=(0.01, 0.1), max_iterations=50)


def _video(index: int, random: np.random.Generator):
    first, second = (0, 1) if index % 2 else (1, 0)
    rows = 0.2 * random.normal(size=(30, 4))
    rows[4:12, first] += 2.0
    rows[18:25, second] += 2.0
    names = ("blink", "spin")
    return record(f"v{index:03d}", rows, annotations=[segment(names[first], 4, 12), segment(names[second], 18, 25)])


def _parts(count: int = 10) -> Parts:
    random = np.random.default_rng(0)
    videos = [_video(index, random) for index in range(3 * count)]
    return Parts(videos[:count], videos[count : 2 * count], videos[2 * count :], "val", "dev")


def test_probe_proposals_beat_the_floor_and_chance():
    parts = _parts()
    probes, names = fit_frame_probes(parts, CONFIG)
    assert names == ["blink", "spin"]
    cells = np.stack([np.arange(30.0), np.arange(1.0, 31.0)], axis=1)
    empty = VideoSegments(np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))
    found = []
    for video in parts.report:
        probability = probes["ours"].probabilities(video.kinds["ours"].rows_ND)
        proposals = propose_segments(probability[:, 1:], cells, ProposalConfig())
        by_probe, by_head = {"ours": proposals, "raw": empty}, {"ours": empty, "raw": _truth_of(video, names)}
        segments = {PROBE: by_probe, HEAD: by_head}
        found.append(LocalisedVideo(key=video.key, video_id=video.video_id, segments=segments))
    fits = {"ours": HeadFit(9, 200, {100: 0.1, 200: 0.2}), "raw": HeadFit(9, 100, {100: 0.3, 200: 0.2})}
    group = localisation_group(parts, found, names, fits, {"raw": np.full((10, 2), 0.5)}, seed=0)
    rows = {row.name.removeprefix("val/frame/localisation/"): row for row in group.rows}
    assert rows["average_map"].ours > 0.9
    assert rows["average_map"].raw == 0.0  # no proposals
    assert rows["average_map"].floor == 0.0  # 8 of 30 s overlap by less than half
    assert rows["average_map"].chance < 0.1
    assert rows["mean_tiou"].floor > 0.2
    assert rows["mean_tiou"].note == "mean_tiou is not a detection metric"
    assert rows["average_recall_at_10"].ours > 0.9
    assert rows["average_map"].count == 20
    assert group.details[PROBE]["ap"]["ours"].shape == (2,)
    by_head = rows["val/pyramid/localisation/average_map"]
    assert (by_head.ours, by_head.raw) == (0.0, 1.0)
    assert (by_head.floor, by_head.chance) == (rows["average_map"].floor, rows["average_map"].chance)
    assert by_head.headline
    assert "fitted on 9 train videos; dev chose step 200 (raw: 100)" in by_head.note
    assert group.details[HEAD]["fit"]["raw"] == {"step": 100, "dev_average_map": {100: 0.3, 200: 0.2}}
    assert len(group.rows) == 2 * 10


def _truth_of(video, names) -> VideoSegments:
    said = video.annotations
    labels = np.array([names.index(item["label"]) for item in said])
    return VideoSegments(labels, np.array([item["segment"] for item in said], float), np.ones(len(said)))


def test_a_fair_sample_of_videos_within_a_number_of_rows():
    rows = [{"key": f"v{i}", "clip.num_rows": 10} for i in range(20)]
    drawn = within_rows(rows, "clip.num_rows", 75)
    assert len(drawn) == 7
    assert {row["key"] for row in drawn} != {f"v{i}" for i in range(7)}
    assert drawn == within_rows(rows[::-1], "clip.num_rows", 75)
    assert len(within_rows(rows, "clip.num_rows", 200)) == 20
    assert len(within_rows(rows, "clip.num_rows", 3)) == 1


def test_no_segments_is_absent():
    parts = _parts(4)
    bare = [record(video.key, video.kinds["ours"].rows_ND) for video in parts.report]
    result = fit_frame_probes(Parts(parts.train, parts.dev, bare, "val", ""), CONFIG)
    assert isinstance(result, Absent)
    assert "val" in result.why
