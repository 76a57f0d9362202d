from typing import Any

import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.flat import FlatPooling, FlatPoolingConfig, RowEncoder, RowEncoderConfig

MASK = torch.arange(8) < torch.tensor([[8], [3], [1]])
TIMES = torch.arange(8.0).expand(3, 8) * 0.5


def rows(padding: float = 0.0, width: int = 4) -> torch.Tensor:
    x = torch.randn(3, 8, width, generator=torch.Generator().manual_seed(0))
    return torch.where(MASK[..., None], x, padding)


def test_the_mean_is_that_of_the_real_rows_and_covers_the_video() -> None:
    base, top = FlatPooling(FlatPoolingConfig(kind="mean"))(rows(padding=1e6), TIMES, MASK)
    expected = torch.stack([rows()[i, : int(n)].mean(0) for i, n in enumerate(MASK.sum(1))])
    torch.testing.assert_close(top.nodes_BLD[:, 0], expected)
    assert torch.equal(base.nodes_BLD, rows()) and torch.equal(base.mask_BL, MASK)
    assert top.frame_spans_BL2[:, 0].tolist() == [[0, 8], [0, 3], [0, 1]] and top.mask_BL.all()
    assert top.spans_s_BL2[:, 0].tolist() == [[0.0, 4.0], [0.0, 1.5], [0.0, 0.0]]


def test_segments_take_the_middle_row_of_each_and_a_random_one_while_training() -> None:
    x = torch.arange(8.0)[None, :, None].expand(3, 8, 1)
    pooling = FlatPooling(FlatPoolingConfig(kind="segments", num_segments=4)).eval()

    def means() -> list[float]:
        return [float(value) for value in pooling(x, TIMES, MASK)[1].nodes_BLD[:, 0, 0]]

    # 8 rows: 1, 3, 5, 7; 3 rows: floor of 0.375, 1.125, 1.875, 2.625; a single row four times.
    assert means() == [4.0, 1.0, 0.0]
    pooling.train()
    torch.manual_seed(0)
    drawn = [means() for _ in range(50)]
    assert len({each[0] for each in drawn}) > 3
    # One row of each quarter: 0 or 1, 2 or 3, 4 or 5, 6 or 7.
    assert all(3.0 <= each[0] <= 4.0 and 0.75 <= each[1] <= 1.25 and each[2] == 0 for each in drawn)


def test_a_row_is_encoded_by_itself() -> None:
    torch.manual_seed(0)
    encoder = RowEncoder(RowEncoderConfig(kind="rows", d_model=6, d_hidden=8), (3, 1)).eval()
    hidden = encoder(rows(padding=1e6), TIMES, MASK)
    order = torch.tensor([2, 0, 1])
    moved = encoder(rows()[1:2, order], TIMES[:1, :3] + 9, MASK[1:2, :3])
    torch.testing.assert_close(hidden[1, order], moved[0])
    assert hidden.shape == (3, 8, 6) and not hidden[~MASK].any() and hidden[MASK].any()
    encoder(rows(padding=float("nan")), TIMES, MASK).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlatPoolingConfig(kind="segments"), "num_segments: got 0 with kind: segments"),
        (lambda: FlatPoolingConfig(kind="mean", num_segments=8), "num_segments: got 8 with kind: mean"),
        (lambda: RowEncoderConfig(kind="rows", d_hidden=0), r"encoder\.d_hidden: got 0"),
        (lambda: RowEncoderConfig(kind="rows", dropout=1.0), r"encoder\.dropout: got 1\.0"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
