import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import elu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hvlm.errors import UserError
from hvlm.models.attention import (
    FullAttention,
    LinearAttention,
    WindowedAttention,
    build_attention,
    padded,
)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return result


def largest(attention: torch.nn.Module, num_rows: int) -> int:
    """Elements of the largest tensor of one forward pass, with kernels that write their scores out."""
    x, mask = torch.randn(1, num_rows, 8), torch.ones(1, num_rows, dtype=torch.bool)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), LargestTensor() as seen:
        attention(x, mask)
    return seen.numel


def prefix(*lengths: int, of: int) -> Tensor:
    return torch.arange(of) < torch.tensor(lengths)[:, None]


def masked_softmax_attention(attention: FullAttention | WindowedAttention, x: Tensor, allowed: Tensor) -> Tensor:
    """The definition: every score, those that `allowed` (B, S, S) forbids at -inf."""
    q, k, v = attention.split(x)
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    return attention.merge(scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1) @ v)


def test_matches_torch_multihead_attention() -> None:
    torch.manual_seed(0)
    ours = FullAttention(8, 2, 0.0)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(ours.query_key_value.weight)
        reference.in_proj_bias.copy_(ours.query_key_value.bias)
        reference.out_proj.weight.copy_(ours.out.weight)
        reference.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(3, 5, 8)
    mask = prefix(5, 3, 1, of=5)
    expected, _ = reference(x, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "windowed", "linear"])
def test_every_choice_has_the_same_parameters(kind) -> None:  # type: ignore[no-untyped-def]
    attention = build_attention(kind, 8, 2, 0.0, window=3, num_global=2)
    assert sum(p.numel() for p in attention.parameters()) == 4 * 8 * 8 + 4 * 8
    assert attention.state_dict().keys() == FullAttention(8, 2, 0.0).state_dict().keys()


@pytest.mark.parametrize("kind", ["full", "windowed", "linear"])
def test_padding_is_no_key_and_a_video_without_rows_stays_finite(kind) -> None:  # type: ignore[no-untyped-def]
    attention = build_attention(kind, 8, 2, 0.0, window=2)
    x = torch.randn(2, 5, 8)
    mask = prefix(2, 0, of=5)
    other = x.clone()
    other[0, 2:] = 100.0
    torch.testing.assert_close(attention(x, mask)[0, :2], attention(other, mask)[0, :2])
    x.requires_grad_()
    result = attention(x, mask)
    result.sum().backward()
    assert torch.isfinite(result).all() and x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("num_global", [0, 2])
def test_no_softmax_of_a_window_runs_over_nothing(num_global: int) -> None:
    """torch's CPU kernels give 0 for a row without keys, others NaN; here no row is without."""
    attention = WindowedAttention(8, 2, 0.0, window=2, num_global=num_global)
    block, num_blocks = attention._blocks(9)
    visible = attention._visible(prefix(num_global + 3, num_global, of=num_global + 9), block, num_blocks)
    assert visible.shape == (2, 5, 2, num_global + 6)
    assert visible.any(-1).all()


@pytest.mark.parametrize("kind", ["full", "windowed", "linear"])
def test_half_precision_stays_near_float32(kind) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(4)
    attention = build_attention(kind, 16, 2, 0.0, window=8)
    x, mask = torch.randn(1, 2000, 16), prefix(1900, of=2000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = attention(x, mask)
    assert half.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(half[mask].float(), attention(x, mask)[mask], atol=0.02, rtol=0)


@pytest.mark.parametrize("window", [7, 8, 100])
def test_a_window_over_everything_is_full_attention(window: int) -> None:
    torch.manual_seed(0)
    full, windowed = FullAttention(8, 2, 0.0), WindowedAttention(8, 2, 0.0, window=window, num_global=0)
    windowed.load_state_dict(full.state_dict())
    x, mask = torch.randn(2, 8, 8), prefix(8, 5, of=8)
    torch.testing.assert_close(windowed(x, mask)[mask], full(x, mask)[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("window", "num_global", "num_frames"), [(1, 0, 7), (3, 2, 10), (3, 1, 9), (4, 3, 2), (2, 2, 1)]
)
def test_windowed_equals_its_definition(window: int, num_global: int, num_frames: int) -> None:
    torch.manual_seed(1)
    attention = WindowedAttention(8, 2, 0.0, window=window, num_global=num_global)
    rows = num_global + num_frames
    x, mask = torch.randn(2, rows, 8), prefix(rows, num_global + 1, of=rows)
    index = torch.arange(rows)
    token = index < num_global
    allowed = ((index[:, None] - index).abs() <= window) | token[:, None] | token
    expected = masked_softmax_attention(attention, x, allowed & mask[:, None, :])
    torch.testing.assert_close(attention(x, mask)[mask], expected[mask], atol=1e-5, rtol=0)


def test_only_a_global_token_carries_news_across_the_video() -> None:
    torch.manual_seed(2)
    x, mask = torch.randn(1, 41, 8), torch.ones(1, 41, dtype=torch.bool)
    changed = x.clone()
    changed[0, -1] += 10.0
    alone = WindowedAttention(8, 2, 0.0, window=2, num_global=0)
    moved = (alone(changed, mask) - alone(x, mask)).abs().amax(-1)[0]
    assert moved[:38].max() == 0 and moved[38:].min() > 1e-3
    token = WindowedAttention(8, 2, 0.0, window=2, num_global=1)
    moved = (token(changed, mask) - token(x, mask)).abs().amax(-1)[0]
    assert moved[0] > 1e-3 and moved[1:38].max() == 0  # the token now; the frames in the next layer


def test_linear_equals_its_kernel_row_by_row() -> None:
    torch.manual_seed(3)
    attention = LinearAttention(8, 2)
    x, mask = torch.randn(2, 6, 8), prefix(6, 4, of=6)
    q, k, v = attention.split(x)
    kernel = (elu(q / 4**0.25) + 1) @ (elu(k / 4**0.25) + 1).transpose(2, 3) * mask[:, None, None, :]
    expected = attention.merge(kernel / kernel.sum(-1, keepdim=True) @ v)
    torch.testing.assert_close(attention(x, mask)[mask], expected[mask], atol=1e-6, rtol=1e-5)


def test_linear_attention_to_equal_keys_is_the_mean_of_the_real_values() -> None:
    attention = LinearAttention(4, 1)
    with torch.no_grad():
        attention.query_key_value.weight[4:8] = 0.0  # keys are the bias alone
    x, mask = torch.randn(1, 5, 4), prefix(3, of=5)
    _, _, v = attention.split(x)
    expected = attention.merge(v[:, :, :3].mean(2, keepdim=True).expand(-1, -1, 5, -1))
    torch.testing.assert_close(attention(x, mask), expected)


def test_linear_attention_survives_keys_that_the_kernel_cannot_see() -> None:
    attention = LinearAttention(4, 1)
    with torch.no_grad():
        attention.query_key_value.bias[4:8] = -1e4  # phi underflows to 0
    assert torch.isfinite(attention(torch.randn(1, 3, 4), prefix(3, of=3))).all()


def test_entries_when_the_length_doubles() -> None:
    full = build_attention("full", 8, 2, 0.0)
    assert full.entries(250) == 2 * 62_500
    assert full.entries(500) == 4 * full.entries(250)
    windowed = build_attention("windowed", 8, 2, 0.0, window=32)
    assert windowed.entries(512) == 2 * 512 * 96
    assert windowed.entries(1024) == 2 * windowed.entries(512)
    tokens = build_attention("windowed", 8, 2, 0.0, window=32, num_global=4)
    assert tokens.entries(512) == 2 * (512 * (96 + 4) + 4 * 516)
    assert build_attention("linear", 8, 2, 0.0).entries(512) == 2 * 512 * 4


@pytest.mark.parametrize("num_frames", [64, 100])
def test_entries_are_the_scores_that_are_computed(num_frames: int) -> None:
    """The largest tensor of a narrow attention is its scores: H T^2, and H N Q V where the tokens have their own."""
    assert largest(FullAttention(8, 2, 0.0), num_frames) == FullAttention(8, 2, 0.0).entries(num_frames)
    windowed = WindowedAttention(8, 2, 0.0, window=16, num_global=0)
    assert largest(windowed, num_frames) == windowed.entries(num_frames)


def test_the_linear_ones_never_hold_a_square_of_the_length() -> None:
    full = FullAttention(8, 2, 0.0)
    assert largest(full, 1024) == 4 * largest(full, 512)
    for attention in (WindowedAttention(8, 2, 0.0, window=16, num_global=2), LinearAttention(8, 2)):
        assert largest(attention, 2 * 8192) <= 2.01 * largest(attention, 8192)
        assert largest(attention, 2 * 8192) <= 2 * 16_384 * (3 * 16 + 2)  # 1.6 M; full attention would hold 537 M


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match="divisor of d_model=8"):
        build_attention("full", 8, 3, 0.0)
    with pytest.raises(UserError, match="full, windowed, linear"):
        build_attention("mamba", 8, 2, 0.0)  # type: ignore[arg-type]


def test_padded_removes_nan() -> None:
    x = torch.full((1, 2, 3), float("nan"))
    x[0, 0] = 1.0
    assert padded(x, torch.tensor([[True, False]])).tolist() == [[[1.0] * 3, [0.0] * 3]]
