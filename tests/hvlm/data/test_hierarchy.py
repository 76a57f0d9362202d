import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvlm.data.hierarchy import (
    ParentSamplingConfig,
    SceneBins,
    TimedKey,
    build_hierarchy,
    clip_windows,
    draw_captions,
    draw_frames,
    draw_parent,
    rows_in_span,
    sample_generator,
    short_clip,
)
from hvlm.errors import UserError

CONFIG = ParentSamplingConfig()
quick = settings(max_examples=60, deadline=None)


def rng(key: str = "a", seed: int = 0, epoch: int = 0) -> np.random.Generator:
    return sample_generator(seed, epoch, key)


def test_captions_of_a_summary_lie_fully_inside_it_in_its_video_and_pass():
    captions = [
        TimedKey("v", 5.0, 6.0, "p1"),  # 0: inside
        TimedKey("v", 0.0, 1.0, "p1"),  # 1: touches the start
        TimedKey("v", 9.0, 10.5, "p1"),  # 2: goes beyond the end
        TimedKey("v", 9.0, 10.0, "p1"),  # 3: touches the end
        TimedKey("v", 2.0, 3.0, "p2"),  # 4: another pass
        TimedKey("w", 2.0, 3.0, "p1"),  # 5: another video
        TimedKey("v", 5.0, 5.5, "p1"),  # 6: same start as 0, ends before it
        TimedKey("v", 12.0, 13.0, "p1"),  # 7: in the second segment
    ]
    one, two, other = TimedKey("v", 0.0, 10.0, "p1"), TimedKey("v", 10.0, 20.0, "p1"), TimedKey("v", 0.0, 10.0, "p2")
    empty, unknown = TimedKey("v", 30.0, 40.0, "p1"), TimedKey("x", 0.0, 9.0, "p1")
    hierarchy = build_hierarchy(captions, [one, two, other, empty, unknown])
    found = {key: positions.tolist() for key, positions in hierarchy.items()}
    assert found == {one: [1, 6, 0, 3], two: [7], other: [4], empty: [], unknown: []}


times = st.integers(0, 60).map(lambda n: n / 2)
keys = st.builds(TimedKey, st.sampled_from(["v", "w"]), times, times, st.sampled_from(["p", "q"]))


@quick
@given(st.lists(keys, max_size=30), st.lists(keys, min_size=1, max_size=5))
def test_the_hierarchy_is_the_plain_definition_whatever_the_order_of_the_rows(captions, summaries):
    captions = [key for key in captions if key.start_s < key.end_s]
    hierarchy = build_hierarchy(captions, summaries)
    assert set(hierarchy) == set(summaries)
    for summary, positions in hierarchy.items():
        expected = [
            i
            for i, c in enumerate(captions)
            if (c.video_id, c.pass_id) == (summary.video_id, summary.pass_id)
            and summary.start_s <= c.start_s
            and c.end_s <= summary.end_s
        ]
        assert sorted(positions.tolist()) == expected
        starts = [captions[i].start_s for i in positions]
        assert starts == sorted(starts)


def test_windows_of_a_long_segment():
    windows = clip_windows((100.0, 400.0), CONFIG)
    assert windows.shape == (16, 2)
    np.testing.assert_allclose(windows[:, 1] - windows[:, 0], 8.0)
    np.testing.assert_allclose(windows[:, 0], 100 + np.arange(16) / 15 * (300 - 8 - 1))
    assert windows[-1, 1] == pytest.approx(399.0)  # the last ends 1 s before the end


@pytest.mark.parametrize(("length_s", "window_s"), [(8.5, 8.0), (8.0, 8.0), (3.0, 3.0)])
def test_windows_of_a_short_segment_do_not_slide_out_of_it(length_s, window_s):
    windows = clip_windows((50.0, 50.0 + length_s), CONFIG)
    assert windows.tolist() == [[50.0, 50.0 + window_s]] * 16


@quick
@given(st.floats(0, 1e4), st.floats(0.1, 2e3), st.integers(1, 20), st.floats(0.1, 20), st.floats(0, 3))
def test_windows_lie_inside_evenly(start, length, num_clips, window_s, margin):
    config = ParentSamplingConfig(num_clips=num_clips, window_s=window_s, end_margin_s=margin)
    windows = clip_windows((start, start + length), config)
    assert windows.shape == (num_clips, 2)
    assert windows[0, 0] == start
    assert (windows[:, 0] >= start).all() and (windows[:, 1] <= start + length).all()
    np.testing.assert_allclose(windows[:, 1] - windows[:, 0], min(window_s, length), atol=1e-6)
    np.testing.assert_allclose(np.diff(windows[:, 0], n=2), 0, atol=1e-6)


def test_a_segment_without_length_is_refused():
    with pytest.raises(UserError, match="segment"):
        clip_windows((5.0, 5.0), CONFIG)
    with pytest.raises(UserError, match="segment"):
        short_clip((5.0, 4.0), rng())


@quick
@given(st.floats(0, 1e4), st.floats(0.1, 100), st.integers(0, 9))
def test_the_flat_baselines_clip_lies_inside_the_segment(start, length, epoch):
    first, last = short_clip((start, start + length), rng(epoch=epoch))
    assert start <= first < last <= start + length
    assert last - first <= 3.0 + 1e-6
    assert last - first >= min(1.5, length) - 1e-6


def test_the_flat_baselines_clips_are_spread_over_the_segment():
    clips = np.array([short_clip((100.0, 160.0), rng(epoch=epoch)) for epoch in range(300)])
    assert clips[:, 0].min() < 103 and clips[:, 1].max() > 157
    assert (clips[:, 1] - clips[:, 0]).std() == pytest.approx(1.5 / 12**0.5, rel=0.15)


def test_rows_of_a_span_are_those_that_share_time_with_it():
    grid = np.arange(10) / 2  # 2 rows per second
    assert rows_in_span(grid, 0.5, (1.0, 2.0)).tolist() == [2, 3]
    assert rows_in_span(grid, 0.5, (1.2, 1.3)).tolist() == [2]  # shorter than a row
    assert rows_in_span(grid, 0.5, (0.9, 1.1)).tolist() == [1, 2]
    # 3 * 0.1 is a rounding beyond 0.3: row 2 ends there and does not belong to the span.
    assert rows_in_span(np.arange(30) * 0.1, 0.1, (0.3, 0.6)).tolist() == [3, 4, 5]
    assert rows_in_span(grid, 0.5, (7.0, 9.0)).tolist() == []  # beyond the video
    with_gap = np.array([0.0, 0.5, 4.0])
    assert rows_in_span(with_gap, 0.5, (1.0, 3.0)).tolist() == []


@pytest.mark.parametrize(
    ("num_rows", "middles"),
    [
        (16, [1, 5, 9, 13]),
        (10, [0, 3, 5, 8]),
        (4, [0, 1, 2, 3]),
        (3, [0, 0, 1, 2]),
        (2, [0, 0, 1, 1]),
        (1, [0, 0, 0, 0]),
    ],
)
def test_evaluation_takes_the_middle_of_each_bin(num_rows, middles):
    draw = draw_frames(np.arange(num_rows) + 20, 4, None)
    assert (draw.rows_T - 20).tolist() == middles
    assert draw.mask_T.all()


@quick
@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 5))
def test_training_draws_one_row_of_each_bin(num_rows, num_frames, epoch):
    rows = np.arange(num_rows) * 3
    draw = draw_frames(rows, num_frames, rng(epoch=epoch))
    assert draw.mask_T.all()
    assert np.isin(draw.rows_T, rows).all()
    assert (np.diff(draw.rows_T) >= 0).all()
    for i, row in enumerate(draw.rows_T // 3):
        low, high = i * num_rows // num_frames, (i + 1) * num_rows // num_frames
        assert low <= row <= max(low, high - 1)


def test_every_row_of_a_bin_can_be_drawn():
    drawn = {tuple(draw_frames(np.arange(6), 2, rng(epoch=epoch)).rows_T.tolist()) for epoch in range(200)}
    assert drawn == {(a, b) for a in range(3) for b in range(3, 6)}  # the last of each bin too


def test_a_clip_without_rows_is_all_padding():
    draw = draw_frames(np.empty(0, np.int64), 4, rng())
    assert draw.rows_T.tolist() == [0] * 4
    assert not draw.mask_T.any()


@quick
@given(st.integers(0, 60), st.integers(1, 16), st.booleans(), st.sampled_from([None, 0, 1]))
def test_captions_are_a_sorted_subset_then_padding(num_captions, num_clips, cycle, epoch):
    config = ParentSamplingConfig(num_clips=num_clips, cycle_captions=cycle)
    captions, mask = draw_captions(num_captions, config, None if epoch is None else rng(epoch=epoch))
    assert captions.shape == mask.shape == (num_clips,)
    if num_captions >= num_clips:
        assert mask.all()
        assert (np.diff(captions) > 0).all()  # in order, none twice
        assert captions[0] >= 0 and captions[-1] < num_captions
    elif cycle and num_captions:
        assert mask.all()
        assert captions.tolist() == [i % num_captions for i in range(num_clips)]
    else:
        assert mask.tolist() == [i < num_captions for i in range(num_clips)]
        assert captions[mask].tolist() == list(range(num_captions))


def test_captions_of_evaluation_are_evenly_spaced():
    assert draw_captions(32, CONFIG, None)[0].tolist() == list(range(1, 33, 2))
    assert draw_captions(16, CONFIG, None)[0].tolist() == list(range(16))


def sample(key: str = "a", seed: int = 0, epoch: int = 0):
    clips = [np.arange(8) + 8 * c for c in range(16)]
    return draw_parent(clips, 40, CONFIG, rng(key, seed, epoch))


def test_a_draw_repeats_for_the_same_seed_epoch_and_key_alone():
    expected = sample()
    assert expected.rows_CT.shape == expected.frame_mask_CT.shape == (16, 4)
    assert (expected.rows_CT // 8 == np.arange(16)[:, None]).all()
    for same, other in zip(expected, sample(), strict=True):
        assert np.array_equal(same, other)
    for changed in (sample(key="b"), sample(seed=1), sample(epoch=1)):
        assert not np.array_equal(changed.rows_CT, expected.rows_CT)
        assert not np.array_equal(changed.captions_C, expected.captions_C)
    # Values that may not change with the version of a library: a resumed run would draw others.
    assert rng("key", 1, 2).integers(0, 1000, 4).tolist() == [939, 804, 682, 12]


def test_scene_negatives_are_other_captions_of_the_same_video_and_bin():
    bins = SceneBins(["v", "v", "v", "v", "w"], [0.0, 59.9, 60.0, 30.0, 10.0])
    drawn = {i: {bins.draw(i, rng(str(n))) for n in range(30)} for i in range(5)}
    assert drawn == {0: {1, 3}, 1: {0, 3}, 2: {None}, 3: {0, 1}, 4: {None}}


def test_bad_settings_are_refused():
    for wrong in ({"num_clips": 0}, {"num_frames": 0}, {"window_s": 0.0}, {"end_margin_s": -1.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ParentSamplingConfig(**wrong)
    with pytest.raises(UserError, match="bin_s"):
        SceneBins([], [], 0.0)
