import numpy as np
import pytest
import torch

from hvlm.data.collate import EncoderRows, TextRow, VideoRows, collate, join_encoders, nearest_rows


def rows(values: list[list[float]], stride_s: float = 1.0, clip_s: float | None = None) -> EncoderRows:
    return EncoderRows(
        np.array(values, np.float16), np.arange(len(values)) * stride_s, stride_s if clip_s is None else clip_s
    )


def test_nearest_rows_by_hand() -> None:
    times = np.array([0.0, 1.0, 2.0])
    assert nearest_rows(times, np.array([-5.0, 0.4, 0.5, 0.6, 1.6, 9.0])).tolist() == [0, 0, 0, 1, 2, 2]
    assert nearest_rows(np.array([3.0]), np.array([0.0, 9.0])).tolist() == [0, 0]


def test_other_strides_are_brought_to_the_first_encoders_grid_by_row_centres() -> None:
    first = rows([[1], [2], [3]], stride_s=1.0)  # centres 0.5, 1.5, 2.5
    second = rows([[10], [20], [30], [40], [50]], stride_s=0.64)  # centres 0.32, 0.96, 1.6, 2.24, 2.88
    joined = join_encoders([first, second])
    assert joined.features_TI.tolist() == [[1, 10], [2, 30], [3, 40]]
    assert joined.times_s.tolist() == [0, 1, 2]
    back = join_encoders([second, first])
    assert back.features_TI.tolist() == [[10, 1], [20, 1], [30, 2], [40, 3], [50, 3]]


def test_rows_that_are_not_finite_are_left_out_with_their_times() -> None:
    joined = join_encoders([rows([[1], [np.nan], [3]]), rows([[1], [2], [np.inf]])])
    assert joined.features_TI.tolist() == [[1, 1]] and joined.times_s.tolist() == [0] and joined.num_bad_rows == 2
    nothing = join_encoders([rows([[np.nan], [np.nan]])])
    assert nothing.features_TI.tolist() == [[0]] and nothing.num_bad_rows == 2


def test_rows_where_another_encoder_has_a_gap_are_left_out() -> None:
    first = rows([[k] for k in range(10)])
    second = EncoderRows(np.array([[10], [20], [30]]), np.array([2.0, 3.0, 7.0]), 1.0, reach_s=0.5)
    joined = join_encoders([first, second])
    assert joined.features_TI[:, 0].tolist() == [1, 2, 3, 4, 6, 7, 8]  # rows that touch one of the second's
    assert joined.features_TI[:, 1].tolist() == [10, 10, 20, 20, 30, 30, 30]
    assert joined.times_s.tolist() == [1, 2, 3, 4, 6, 7, 8] and joined.num_bad_rows == 0
    back = join_encoders([second, first])
    assert back.features_TI.tolist() == [[10, 2], [20, 3], [30, 7]]
    far = join_encoders([rows([[1]]), EncoderRows(np.array([[2]]), np.array([50.0]), 1.0, reach_s=0.5)])
    assert far.features_TI.tolist() == [[0, 0]] and far.num_bad_rows == 0


def test_l2_is_per_encoder_and_zero_rows_stay_zero() -> None:
    joined = join_encoders([rows([[3, 4], [0, 0]]), rows([[2], [0]])], l2_normalise=True)
    np.testing.assert_allclose(joined.features_TI, [[0.6, 0.8, 1.0], [0, 0, 0]], rtol=1e-6)


def test_a_one_dimensional_feature_is_one_row() -> None:
    joined = join_encoders([EncoderRows(np.array([1.0, 2.0]), np.array([0.0]), 1.0)])
    assert joined.features_TI.shape == (1, 2)


def test_collate_pads_with_zeros_and_a_prefix_mask() -> None:
    videos = [VideoRows(np.full((n, 2), 5, np.float32), np.arange(n) + 0.5, n - 1) for n in (3, 1)]
    batch = collate(["a", "b"], videos, [TextRow(np.ones(4, np.float32), 7), TextRow(np.zeros(4, np.float32), 9)], 4)
    assert batch.mask_BT.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert batch.features_BTI.shape == (2, 4, 2) and float(batch.features_BTI[~batch.mask_BT].abs().max()) == 0
    assert batch.times_BT.tolist() == [[0.5, 1.5, 2.5, 0.0], [0.5, 0.0, 0.0, 0.0]]
    assert batch.text_BX is not None and batch.text_BX.shape == (2, 4)
    assert batch.text_group_B is not None and batch.text_group_B.tolist() == [7, 9]
    assert batch.num_bad_rows == 2
    assert batch.to(torch.device("cpu")).keys == ["a", "b"]
    assert collate(["a"], videos[:1], None, 3).text_BX is None
    with pytest.raises(ValueError, match="'a' has features"):
        collate(["a"], videos[:1], None, 2)


def test_parts_of_a_batch_are_its_rows() -> None:
    videos = [VideoRows(np.full((n + 1, 2), n, np.float32), np.arange(n + 1.0), n) for n in range(4)]
    whole = collate(list("abcd"), videos, [TextRow(np.full(4, n, np.float32), n) for n in range(4)], 5)
    first, second = whole.split(2)
    assert (first.keys, second.keys) == (["a", "b"], ["c", "d"])
    assert (first.num_bad_rows, second.num_bad_rows) == (6, 0)
    for name in ("features_BTI", "times_BT", "mask_BT", "text_BX", "text_group_B"):
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(whole, name)), name
    (same,) = whole.split(1)
    assert same.keys == whole.keys and same.features_BTI.data_ptr() == whole.features_BTI.data_ptr()
    bare = collate(list("ab"), videos[:2], None, 5).split(2)
    assert [part.text_BX for part in bare] == [None, None]
