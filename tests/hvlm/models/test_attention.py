import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.attention import FullAttention, build_attention, padded


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
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    expected, _ = reference(x, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask), expected, atol=1e-6, rtol=1e-5)
    assert sum(p.numel() for p in ours.parameters()) == 4 * 8 * 8 + 4 * 8


def test_padding_is_no_key_and_a_video_without_rows_stays_finite() -> None:
    attention = FullAttention(8, 2, 0.0)
    x = torch.randn(2, 4, 8)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    other = x.clone()
    other[0, 2:] = 100.0
    torch.testing.assert_close(attention(x, mask)[0, :2], attention(other, mask)[0, :2])
    assert torch.isfinite(attention(x, mask)).all()


def test_doubling_the_length_quadruples_the_entries() -> None:
    attention = build_attention("full", 8, 2, 0.0)
    assert attention.entries(250) == 2 * 62_500
    assert attention.entries(500) == 4 * attention.entries(250)


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match="divisor of d_model=8"):
        build_attention("full", 8, 3, 0.0)
    with pytest.raises(UserError, match="attention"):
        build_attention("linear", 8, 2, 0.0)  # type: ignore[arg-type]


def test_padded_removes_nan() -> None:
    x = torch.full((1, 2, 3), float("nan"))
    x[0, 0] = 1.0
    assert padded(x, torch.tensor([[True, False]])).tolist() == [[[1.0] * 3, [0.0] * 3]]
