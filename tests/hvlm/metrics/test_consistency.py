"""Temporal consistency and its companions: hand-made values, padding, and collapse that they must show."""

import math

import numpy as np
import pytest

from hvlm.metrics.consistency import (
    BoundaryPairs,
    UnitMoments,
    boundary_pairs,
    cross_video_cosine,
    distant_pair_cosine,
    effective_rank,
    temporal_consistency,
    unit_std,
)

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_temporal_consistency_by_hand():
    hidden = np.array([[X, [2.0, 0.0], Y], [X, Y, Y], [X, X, X]])
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=bool)
    # cosines 1 and 0; 0 only; a single row has no pair
    np.testing.assert_allclose(temporal_consistency(hidden, mask), [0.5, 0.0, np.nan])


def test_padding_has_no_influence():
    random = np.random.default_rng(0)
    hidden, mask = random.normal(size=(3, 9, 4)), np.arange(9)[None, :] < np.array([[9], [5], [2]])
    plain = temporal_consistency(hidden, mask)
    for filler in (1e6, np.nan, np.inf):
        np.testing.assert_array_equal(temporal_consistency(np.where(mask[..., None], hidden, filler), mask), plain)
    longer = np.concatenate([hidden, np.full((3, 7, 4), 1e6)], axis=1)
    longer_mask = np.concatenate([mask, np.zeros((3, 7), bool)], axis=1)
    np.testing.assert_allclose(temporal_consistency(longer, longer_mask), plain, rtol=1e-12)
    alone = [
        temporal_consistency(hidden[b : b + 1, : mask[b].sum()], mask[b : b + 1, : mask[b].sum()])[0] for b in range(3)
    ]
    np.testing.assert_allclose(alone, plain, rtol=1e-12)


def test_distant_pairs_are_at_least_the_gap_apart():
    hidden, times = np.array([X, Y, X]), np.array([0.0, 4.0, 8.0])
    assert distant_pair_cosine(hidden, times) == 1.0  # only rows 0 and 2 are 8 s apart
    assert distant_pair_cosine(hidden, times, min_gap_s=4.0) == pytest.approx(1 / 3)
    assert math.isnan(distant_pair_cosine(hidden, times, min_gap_s=9.0))
    assert math.isnan(distant_pair_cosine(hidden[:0], times[:0]))


def test_cross_video_cosine_equals_all_pairs():
    random = np.random.default_rng(1)
    videos = [random.normal(size=(n, 3)) + 0.5 for n in (4, 7, 2)]
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in videos]
    expected = np.mean([np.mean(units[a] @ units[b].T) for a in range(3) for b in range(3) if a != b])
    assert cross_video_cosine(np.stack([u.mean(axis=0) for u in units])) == pytest.approx(expected)
    assert math.isnan(cross_video_cosine(np.array([X])))


def test_moments_add_up_and_give_spread_and_rank():
    random = np.random.default_rng(2)
    rows = random.normal(size=(4000, 8))
    whole = UnitMoments.of(rows)
    parts = UnitMoments.of(rows[:100]) + UnitMoments.of(rows[100:])
    assert unit_std(parts) == pytest.approx(unit_std(whole))
    assert unit_std(whole) == pytest.approx(1.0, abs=0.02)
    assert effective_rank(whole) == pytest.approx(8.0, abs=0.1)
    singular = np.linalg.svd(_centred_units(rows), compute_uv=False) ** 2
    shares = singular / singular.sum()
    assert effective_rank(whole) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))))


def _centred_units(rows: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units - units.mean(axis=0)


@pytest.mark.parametrize("kind", ["constant", "scaled", "rank_1"])
def test_collapse_shows_although_temporal_consistency_is_perfect(kind):
    random = np.random.default_rng(3)
    direction = random.normal(size=16)
    size = {"constant": np.ones(200), "scaled": random.uniform(1, 9, 200), "rank_1": np.sign(random.normal(size=200))}[
        kind
    ]
    moments = UnitMoments.of(size[:, None] * direction)
    if kind == "rank_1":
        assert effective_rank(moments) == pytest.approx(1.0)
    else:  # h = r * u: the norm varies, the direction does not
        assert unit_std(moments) < 1e-6
        assert math.isnan(effective_rank(moments))


def test_boundary_contrast_by_hand():
    # rows at 0.5, 1.5, ... s; one segment [2, 4); x outside, y inside, so both crossings have cosine 0
    hidden, centres = np.array([X, X, Y, Y, X]), np.arange(5) + 0.5
    pairs = boundary_pairs(hidden, centres, np.array([[2.0, 4.0]]))
    assert pairs == BoundaryPairs(inside_sum=1.0, num_inside=1, across_sum=0.0, num_across=2)
    assert pairs.contrast() == 1.0


def test_boundary_contrast_of_touching_and_missing_segments():
    hidden, centres = np.array([X, X, Y, Y]), np.arange(4) + 0.5
    touching = boundary_pairs(hidden, centres, np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert (touching.num_inside, touching.num_across) == (2, 1)
    # a pair inside one segment that crosses the boundary of another one is a crossing
    nested = boundary_pairs(hidden, centres, np.array([[0.0, 4.0], [2.0, 4.0]]))
    assert (nested.num_inside, nested.num_across) == (2, 1)
    # a boundary exactly on a centre belongs to the pair that ends there
    on_centre = boundary_pairs(hidden, centres, np.array([[1.5, 4.0]]))
    assert (on_centre.num_inside, on_centre.num_across) == (2, 1)
    assert math.isnan(boundary_pairs(hidden, centres, np.empty((0, 2))).contrast())
    assert math.isnan(boundary_pairs(hidden[:1], centres[:1], np.array([[0.0, 1.0]])).contrast())
    assert (touching + BoundaryPairs()).contrast() == touching.contrast()
