from dataclasses import replace

import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.attention import AttentionKind
from hvlm.models.input_norm import InputNormKind
from hvlm.models.temporal_encoder import TemporalEncoder, TemporalEncoderConfig

LENGTHS = [9, 4, 1]


def tiny(input_norm: InputNormKind = "layer", attention: AttentionKind = "full") -> TemporalEncoder:
    torch.manual_seed(0)
    config = TemporalEncoderConfig(
        d_model=16,
        num_layers=2,
        num_heads=2,
        d_ff=32,
        input_norm=input_norm,
        attention=attention,
        window_rows=2 if attention == "windowed" else 0,
        num_global_tokens=2 if attention == "windowed" else 0,
    )
    return TemporalEncoder(config, (6,)).eval()


def batch(pad_to: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))
    x = torch.cat([x, torch.zeros(3, pad_to - 9, 6)], dim=1)
    times = torch.arange(pad_to) * 0.64
    return x, times.expand(3, -1).clone(), torch.arange(pad_to) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("content", [1e6, float("nan")])
@pytest.mark.parametrize(
    ("input_norm", "attention"),
    [("none", "full"), ("l2", "full"), ("layer", "full"), ("layer", "windowed"), ("layer", "linear")],
)
def test_padding_content_and_amount_do_not_matter(
    content: float, input_norm: InputNormKind, attention: AttentionKind
) -> None:
    encoder = tiny(input_norm, attention)
    x, times, mask = batch()
    expected = encoder(x, times, mask)
    long_x, long_times, long_mask = batch(pad_to=20)
    long_x[~long_mask] = content
    long_times[~long_mask] = content
    got = encoder(long_x, long_times, long_mask)
    torch.testing.assert_close(got[:, :9], expected, atol=1e-5, rtol=0)
    assert got[~long_mask].abs().max() == 0


@pytest.mark.parametrize("attention", ["full", "windowed", "linear"])
def test_batch_equals_video_by_video(attention: AttentionKind) -> None:
    encoder = tiny(attention=attention)
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


@pytest.mark.parametrize("attention", ["full", "windowed", "linear"])
def test_every_parameter_learns(attention: AttentionKind) -> None:
    encoder = tiny(attention=attention)
    x, times, mask = batch()
    (encoder(x, times, mask) ** 3).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_global_tokens_carry_news_across_the_video_and_are_the_only_extra_parameters() -> None:
    x, times, mask = torch.randn(1, 40, 6), torch.arange(40)[None] * 0.64, torch.ones(1, 40, dtype=torch.bool)
    other = x.clone()
    other[0, -1] *= -1.0
    full = TemporalEncoderConfig(d_model=16, num_layers=2, num_heads=2, d_ff=32)
    for num_global, reaches in ((0, False), (3, True)):
        config = replace(full, attention="windowed", window_rows=2, num_global_tokens=num_global)
        encoder = TemporalEncoder(config, (6,)).eval()
        moved = (encoder(other, times, mask) - encoder(x, times, mask)).abs().amax(-1)[0]
        assert moved[-1] > 0.1 and bool(moved[0] > 1e-5) == reaches
        assert _size(encoder) - _size(TemporalEncoder(full, (6,))) == num_global * 16


@pytest.mark.parametrize("attention", ["windowed", "linear"])
def test_sixteen_thousand_rows_pass_on_a_cpu(attention: AttentionKind) -> None:
    num_rows = 16_384
    encoder, times = tiny(attention=attention), torch.arange(num_rows)[None] * 0.64
    mask = torch.arange(num_rows)[None] < num_rows - 3
    with torch.no_grad():
        hidden = encoder(torch.randn(1, num_rows, 6), times, mask)
    assert hidden.shape == (1, num_rows, 16) and torch.isfinite(hidden).all()


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "windowed"}, "window_rows.*0 with attention: windowed"),
        ({"attention": "windowed", "window_rows": 8, "num_global_tokens": -1}, "num_global_tokens"),
        ({"window_rows": 8}, "window_rows.*leave it out"),
        ({"attention": "linear", "num_global_tokens": 2}, "num_global_tokens.*leave it out"),
        ({"d_model": 30, "num_heads": 4}, "multiple of num_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"d_ff": 0}, "d_ff"),
    ],
)
def test_bad_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TemporalEncoderConfig(**changes)  # type: ignore[arg-type]
