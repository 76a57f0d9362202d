import torch

from hvlm.data.crops import Rows, crop_rows


def videos(lengths: list[int], padding: float = 0.0) -> Rows:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    numbers = torch.arange(float(max(lengths))).expand(len(lengths), -1)
    return Rows(torch.where(mask, numbers, padding)[..., None], 10 + 0.5 * numbers, mask)


def test_parts_by_hand() -> None:
    """A share of 0 is the shortest part at the start; one just below 1 the whole, or the last place."""
    share = torch.tensor([[0.0, 0.0], [0.0, 0.999], [0.999, 0.5], [0.5, 0.5]])
    parts = crop_rows(videos([8, 8, 8, 3], padding=1e6), share, 0.5)
    found = [part[mask, 0].tolist() for part, mask in zip(parts.features_BTI, parts.mask_BT, strict=True)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2]]
    assert parts.times_BT[1].tolist() == [0, 0.5, 1, 1.5, 0, 0, 0, 0], "a part starts at 0 s"
    assert not parts.features_BTI[~parts.mask_BT].any(), "padding never comes in"


def test_every_part_is_long_enough_contiguous_and_inside() -> None:
    share = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    parts = crop_rows(videos([20, 7, 2, 1, 13] * 100), share, 0.4)
    lengths = parts.mask_BT.sum(1)
    for i, whole in enumerate([20, 7, 2, 1, 13] * 100):
        rows = parts.features_BTI[i, : lengths[i], 0]
        assert 0.4 * whole <= lengths[i] <= whole
        assert (rows.diff() == 1).all() and rows[0] >= 0 and rows[-1] < whole
    assert len({(int(n), float(x[0, 0])) for n, x in zip(lengths[::5], parts.features_BTI[::5], strict=True)}) > 30
