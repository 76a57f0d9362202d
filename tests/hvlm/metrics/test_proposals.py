"""Segments from row probabilities: oracle, floors and chance bracket the localiser; soft-NMS by hand."""

import math

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.metrics.localisation import Segments, evaluate_detection, segments_of
from hvlm.metrics.proposals import (
    ProposalConfig,
    VideoSegments,
    propose_segments,
    random_segments,
    row_cells,
    segments_of_videos,
    soft_nms,
    suppress,
    whole_video_segments,
)

CONFIG = ProposalConfig()


def test_cells_tile_the_video():
    # CLIP at 1 fps: the row at t stands for [t, t + 1); 3.4 s long
    np.testing.assert_allclose(row_cells(np.arange(4.0), 1.0, 1.0, 3.4), [[0, 1], [1, 2], [2, 3], [3, 3.4]])
    # clips of 2 s every second: the cell is the middle second, the ends reach out to the video's ends
    np.testing.assert_allclose(row_cells(np.arange(3.0), 1.0, 2.0, 4.0), [[0, 1.5], [1.5, 2.5], [2.5, 4]])
    assert row_cells(np.empty(0), 1.0, 1.0, 3.0).shape == (0, 2)


def test_cells_do_not_cover_what_was_left_out():
    times = np.array([0.96, 2.0, 5.0, 6.0])  # of 1 fps, 7.9 s; the frame on screen at 1 s began before
    cells = row_cells(times, 1.0, 1.0, 7.9, gaps=True)
    np.testing.assert_allclose(cells, [[0.96, 1.98], [1.98, 3], [5, 6], [6, 7]])
    np.testing.assert_allclose(row_cells(times, 1.0, 1.0, 7.9), [[0, 1.98], [1.98, 4], [4, 6], [6, 7.9]])
    found = propose_segments(np.ones((4, 1)), cells, CONFIG)
    assert sorted(found.span_N2.tolist()) == [[0.96, 3.0], [5.0, 7.0]]


def test_oracle_rows_give_the_true_segments():
    rows = np.zeros((10, 2))
    rows[2:5, 0], rows[7:9, 0], rows[0:4, 1] = 1.0, 1.0, 1.0
    cells = np.stack([np.arange(10.0), np.arange(1.0, 11.0)], axis=1)
    found = propose_segments(rows, cells, CONFIG)
    spans = {(int(c), *map(float, s)) for c, s in zip(found.label_N, found.span_N2, strict=True)}
    assert spans == {(0, 2.0, 5.0), (0, 7.0, 9.0), (1, 0.0, 4.0)}
    np.testing.assert_allclose(found.score_N, 1.0)


def test_levels_find_a_peak_and_its_base():
    rows = np.array([0.0, 0.3, 0.9, 0.9, 0.3, 0.0, 0.0, 0.0])[:, None]
    cells = np.stack([np.arange(8.0), np.arange(1.0, 9.0)], axis=1)
    found = propose_segments(rows, cells, CONFIG)
    assert found.span_N2.tolist() == [[1.0, 5.0], [2.0, 4.0]] or found.span_N2.tolist() == [[2.0, 4.0], [1.0, 5.0]]
    assert (np.diff(found.score_N) <= 0).all()


def test_flat_and_faint_classes():
    cells = np.stack([np.arange(4.0), np.arange(1.0, 5.0)], axis=1)
    assert len(propose_segments(np.zeros((4, 3)), cells, CONFIG).label_N) == 0
    assert len(propose_segments(np.full((4, 1), 0.01), cells, CONFIG).label_N) == 0  # below min_peak
    whole = propose_segments(np.full((4, 1), 0.8), cells, CONFIG)
    assert whole.span_N2.tolist() == [[0.0, 4.0]]


def test_soft_nms_by_hand():
    spans = np.array([[0.0, 10.0], [0.0, 10.0], [20.0, 30.0], [5.0, 15.0]])
    kept, scores = soft_nms(spans, np.array([0.9, 0.8, 0.7, 0.6]), sigma=0.5)
    # the twin of the first falls to .8 exp(-1/.5) = .108, the shifted one to .6 exp(-(1/9)/.5) = .480;
    # then the shifted one is picked and the twin decays once more
    third = 0.6 * math.exp(-((1 / 3) ** 2) / 0.5)
    last = 0.8 * math.exp(-2) * math.exp(-((1 / 3) ** 2) / 0.5)
    np.testing.assert_allclose(scores, [0.9, 0.7, third, last])
    assert kept.tolist() == [[0, 10], [20, 30], [5, 15], [0, 10]]
    assert len(soft_nms(spans, np.array([0.9, 0.8, 0.7, 0.6]), max_keep=2)[0]) == 2
    assert len(soft_nms(spans[:0], np.empty(0))[0]) == 0


def test_suppression_is_within_a_class_and_keeps_the_best():
    spans = np.array([[0.0, 10.0], [0.0, 10.0], [0.0, 10.0], [20.0, 30.0]])
    found = VideoSegments(np.array([1, 0, 1, 0]), spans, np.array([0.9, 0.8, 0.7, 0.8]))
    kept = suppress(found, ProposalConfig(max_per_video=3))
    # the twin of class 1 falls to .7 exp(-2) and is left out as the fourth; equal scores by class, then by start
    assert kept.label_N.tolist() == [1, 0, 0]
    assert kept.span_N2[:, 0].tolist() == [0, 0, 20]
    np.testing.assert_allclose(kept.score_N, [0.9, 0.8, 0.8])
    named = segments_of_videos([("a", kept), ("b", kept)])
    assert named.video_N.tolist() == ["a"] * 3 + ["b"] * 3
    assert named.label_N.tolist() == [1, 0, 0] * 2


def _world(seed: int) -> tuple[list, Segments]:
    """Twelve videos of 40 s with two of four classes each, as (name, (40, 4) oracle rows)."""
    random, videos, truth = np.random.default_rng(seed), [], []
    for v in range(12):
        rows = np.zeros((40, 4))
        for c, start in zip(random.permutation(4)[:2].tolist(), (2, 22), strict=True):
            first, length = start + int(random.integers(6)), int(random.integers(5, 12))
            rows[first : first + length, c] = 1.0
            truth.append((f"v{v:02d}", c, float(first), float(first + length), 1.0))
        videos.append((f"v{v:02d}", rows))
    return videos, segments_of(truth)


def test_oracle_whole_video_and_chance_bracket_the_localiser():
    videos, truth = _world(0)
    cells, random = np.stack([np.arange(40.0), np.arange(1.0, 41.0)], axis=1), np.random.default_rng(1)
    noisy = [(name, np.clip(rows * 0.6 + random.uniform(0, 0.5, rows.shape), 0, 1)) for name, rows in videos]
    score = {
        "oracle": _average_map([(n, propose_segments(r, cells, CONFIG)) for n, r in videos], truth),
        "noisy": _average_map([(n, propose_segments(r, cells, CONFIG)) for n, r in noisy], truth),
        "whole": _average_map([(n, whole_video_segments(r.max(axis=0), 40.0)) for n, r in videos], truth),
        "chance": _average_map([(n, random_segments(4, 40.0, 20, random)) for n, r in videos], truth),
    }
    assert score["oracle"] == pytest.approx(1.0)
    assert score["oracle"] > score["noisy"] > 0.2
    assert score["noisy"] > 2 * max(score["whole"], score["chance"])
    assert score["chance"] < 0.1


def _average_map(found: list, truth: Segments) -> float:
    rows = [
        (name, int(c), *map(float, span), float(s))
        for name, f in found
        for c, span, s in zip(f.label_N, f.span_N2, f.score_N, strict=True)
    ]
    return evaluate_detection(segments_of(rows), truth).average_map()


def test_config_ranges():
    for wrong in (
        {"num_thresholds": 0},
        {"min_peak": 1.0},
        {"flank_fraction": 0.0},
        {"nms_sigma": 0.0},
        {"max_per_video": 0},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ProposalConfig(**wrong)
