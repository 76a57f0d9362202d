import torch

from hvlm.losses.batch import draw_rows, masked, take_rows, unit


def test_draw_does_not_depend_on_padding_and_stays_inside() -> None:
    lengths = torch.tensor([[1], [5], [12], [0]])
    short = draw_rows(torch.arange(12) < lengths, 200, torch.Generator().manual_seed(3))
    long = draw_rows(torch.arange(40) < lengths, 200, torch.Generator().manual_seed(3))
    assert torch.equal(short, long)
    assert short.max(1).values.tolist() == [0, 4, 11, 0]
    assert short.min() == 0


def test_take_rows() -> None:
    x = torch.arange(12.0).view(2, 3, 2)
    assert take_rows(x, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_masked_and_unit_survive_nan_padding_and_zero_rows() -> None:
    x = torch.tensor([[[3.0, 4.0], [float("nan"), 1.0], [0.0, 0.0]]])
    clean = unit(masked(x, torch.tensor([[True, False, True]])))
    torch.testing.assert_close(clean, torch.tensor([[[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]]))
