import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.input_norm import InputNormKind
from hvlm.models.temporal_encoder import TemporalEncoder, TemporalEncoderConfig

LENGTHS = [9, 4, 1]


def tiny(input_norm: InputNormKind = "layer") -> TemporalEncoder:
    torch.manual_seed(0)
    config = TemporalEncoderConfig(d_model=16, num_layers=2, num_heads=2, d_ff=32, input_norm=input_norm)
    return TemporalEncoder(config, (6,)).eval()


def batch(pad_to: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))
    x = torch.cat([x, torch.zeros(3, pad_to - 9, 6)], dim=1)
    times = torch.arange(pad_to) * 0.64
    return x, times.expand(3, -1).clone(), torch.arange(pad_to) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("content", [1e6, float("nan")])
@pytest.mark.parametrize("input_norm", ["none", "l2", "layer"])
def test_padding_content_and_amount_do_not_matter(content: float, input_norm: InputNormKind) -> None:
    encoder = tiny(input_norm)
    x, times, mask = batch()
    expected = encoder(x, times, mask)
    long_x, long_times, long_mask = batch(pad_to=20)
    long_x[~long_mask] = content
    long_times[~long_mask] = content
    got = encoder(long_x, long_times, long_mask)
    torch.testing.assert_close(got[:, :9], expected, atol=1e-5, rtol=0)
    assert got[~long_mask].abs().max() == 0


def test_batch_equals_video_by_video() -> None:
    encoder = tiny()
    x, times, mask = batch()
    together = encoder(x, times, mask)
    for index, length in enumerate(LENGTHS):
        alone = encoder(x[index : index + 1, :length], times[:1, :length], mask[index : index + 1, :length])
        torch.testing.assert_close(together[index, :length], alone[0], atol=1e-5, rtol=0)


def test_order_matters() -> None:
    encoder = tiny()
    x, times, mask = batch()
    order = torch.tensor([3, 1, 4, 0, 2, 8, 6, 7, 5])
    permuted = encoder(x[:1, order], times[:1], mask[:1])
    assert (permuted - encoder(x[:1], times[:1], mask[:1])[:, order]).abs().max() > 0.05
    # When the times move with the rows, nothing but the order of rows changes.
    moved = encoder(x[:1, order], times[:1, order], mask[:1])
    torch.testing.assert_close(moved, encoder(x[:1], times[:1], mask[:1])[:, order], atol=1e-5, rtol=0)


def test_seconds_count_and_not_the_index() -> None:
    encoder = tiny()
    x, times, mask = batch()
    assert (encoder(x, times / 2, mask) - encoder(x, times, mask)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"d_model": 30, "num_heads": 4}, "multiple of num_heads"), ({"dropout": 1.0}, "dropout"), ({"d_ff": 0}, "d_ff")],
)
def test_bad_sizes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TemporalEncoderConfig(**changes)  # type: ignore[arg-type]
