import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig

ENCODER = TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=32)


def build(*, aligned: bool = True, num_classes: int = 0) -> HierarchicalVLM:
    torch.manual_seed(0)
    config = HierarchicalVLMConfig(
        encoder=ENCODER,
        projector=ProjectorConfig(dim=8),
        alignment=AlignmentConfig(enabled=aligned, dim=6),
        cross_scale=True,
        num_classes=num_classes,
    )
    return build_model(config, (4, 3), 5 if aligned else None).eval()


def batch(pad_to: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.arange(pad_to) < torch.tensor([9, 4, 1])[:, None]
    x = torch.full((3, pad_to, 7), 1e6)
    x[mask] = torch.randn(14, 7, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(pad_to).float().expand(3, -1), mask


def test_shapes_of_the_output() -> None:
    out = build(num_classes=3)(*batch(), torch.randn(3, 5))
    assert out.hidden_BTD.shape == (3, 9, 16)
    assert out.projected_BTZ.shape == (3, 9, 8)
    assert [level.nodes_BLD.shape[1] for level in out.levels] == [9, 4, 2, 1]
    assert [nodes.predicted_BLZ.shape for nodes in out.cross_scale] == [(3, n, 8) for n in (9, 4, 2, 1)]
    assert out.frame_logits_BTC is not None
    assert out.frame_logits_BTC.shape == (3, 9, 3)
    assert out.text_BE is not None
    torch.testing.assert_close(out.text_BE.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(out.video_BE.norm(dim=1), torch.ones(3))
    assert out.video_BE.shape == (3, 6)


def test_more_padding_changes_nothing() -> None:
    model = build()
    short, long = model(*batch()), model(*batch(pad_to=24))
    torch.testing.assert_close(long.projected_BTZ[:, :9], short.projected_BTZ, atol=1e-5, rtol=0)
    torch.testing.assert_close(long.video_BE, short.video_BE, atol=1e-5, rtol=0)
    assert long.projected_BTZ[:, 9:].abs().max() == 0
    for own, other in zip(short.cross_scale, long.cross_scale, strict=False):
        count = own.mask_BL.shape[1]
        torch.testing.assert_close(other.predicted_BLZ[:, :count], own.predicted_BLZ, atol=1e-5, rtol=0)


def test_without_alignment_the_rest_is_bit_identical() -> None:
    with_text, without = build(), build(aligned=False)
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_text.state_dict()[name]), name
    out = without(*batch(), torch.randn(3, 5))
    assert torch.equal(out.projected_BTZ, with_text(*batch()).projected_BTZ)
    assert out.text_BE is None
    assert out.logit_scale is None
    top = out.levels[-1].nodes_BLD[:, 0]
    torch.testing.assert_close(out.video_BE, top / top.norm(dim=1, keepdim=True))


def test_errors_say_what_to_do() -> None:
    with pytest.raises(UserError, match="width 9; expected width 7"):
        build()(torch.randn(1, 2, 9), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(UserError, match="true without text features"):
        build_model(HierarchicalVLMConfig(encoder=ENCODER), 7)
    with pytest.raises(UserError, match="expected true to embed text"):
        build(aligned=False).embed_text(torch.randn(1, 5))
    with pytest.raises(UserError, match="d_in"):
        build_model(HierarchicalVLMConfig(encoder=ENCODER), ())


def test_runs_under_bfloat16_autocast_close_to_float32() -> None:
    model = build()
    expected = model(*batch(), torch.ones(3, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(*batch(), torch.ones(3, 5))
    assert torch.isfinite(got.projected_BTZ).all()
    assert got.video_BE.dtype == torch.float32
    assert (got.video_BE * expected.video_BE).sum(-1).min() > 0.99
