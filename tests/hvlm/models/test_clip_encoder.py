import pytest
import torch
from torch import Tensor

from hvlm.errors import UserError
from hvlm.models.clip_encoder import ClipEncoderConfig, build_clip_encoder

KINDS = ["mean", "attention"]


def build(kind: str, d_in: int = 6, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ClipEncoderConfig(
        **({"kind": kind, "hidden": 8, "num_layers": 2, "num_heads": 2, "max_frames": 4} | changes)
    )
    made = build_clip_encoder(config, d_in, 5).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


def clips() -> tuple[Tensor, Tensor]:
    mask = torch.arange(4) < torch.tensor([4, 2, 1, 0])[:, None]
    x = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(1))
    return x.masked_fill(~mask[..., None], float("nan")), mask


@pytest.mark.parametrize("kind", KINDS)
def test_padded_frames_never_change_the_output(kind):
    x, mask = clips()
    encode = build(kind)
    got = encode(x, mask)
    assert got.shape == (4, 5)
    assert torch.isfinite(got).all()
    assert torch.equal(got, encode(x.masked_fill(~mask[..., None], 1e4), mask))
    # A clip of two frames is the same with and without the room for more.
    torch.testing.assert_close(encode(x[1:2, :2], mask[1:2, :2]), got[1:2])
    got.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encode.parameters())


def test_the_mean_counts_each_real_frame_once():
    encode = build("mean")
    x = torch.randn(1, 3, 6)
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(encode(x, mask), encode.head(x[:, :2].mean(1)))


@pytest.mark.parametrize(("kind", "order_matters"), [("mean", False), ("attention", True)])
def test_only_the_time_table_knows_the_order(kind, order_matters):
    x, mask = torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool)
    encode = build(kind)
    moved = (encode(x[:, [2, 0, 3, 1]], mask) - encode(x, mask)).abs().max()
    assert moved > 1e-2 if order_matters else moved < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_used_and_half_precision_features_are_read(kind):
    encode = build(kind)
    encode(torch.randn(2, 4, 6).half(), torch.ones(2, 4).bool()).square().sum().backward()
    assert [name for name, p in encode.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_c3d_are_rows_like_any_other(kind):
    # 4,096 wide and with norms of 50 and more: the norm in front makes their scale irrelevant.
    encode = build(kind, d_in=4096)
    x, mask = 50 * torch.rand(2, 2, 4096), torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(encode(x, mask), encode(x / 50, mask), atol=1e-2, rtol=1e-2)


def test_more_frames_than_the_table_are_an_error_and_the_mean_has_none():
    with pytest.raises(UserError, match=r"got 5; expected at most clip\.max_frames=4"):
        build("attention")(torch.zeros(1, 5, 6), torch.ones(1, 5).bool())
    assert build("mean")(torch.zeros(1, 5, 6), torch.ones(1, 5).bool()).shape == (1, 5)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="hidden"):
        ClipEncoderConfig(hidden=0)
    with pytest.raises(UserError, match="a divisor of the width 8"):
        build("attention", num_heads=3)
