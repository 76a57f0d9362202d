import pytest
import torch
from torch import Tensor

from hvlm.errors import UserError
from hvlm.models.aggregator import AggregatorConfig, PreNormBlock, SelfAttentionAggregator, build_aggregator

SMALL = AggregatorConfig(num_clips=5, num_layers=3, num_heads=2)


def build(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = {"num_clips": 5, "num_layers": 3, "num_heads": 2} | changes
    made = build_aggregator(AggregatorConfig(**settings), 8).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)  # larger than at the start, so that attention is far from the mean
    return made


def vectors(count: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.ones(count, 5, dtype=torch.bool)


def test_the_published_size_has_4738816_parameters_and_no_other():
    with torch.device("meta"):
        made = build_aggregator(AggregatorConfig(), 256)
    assert sum(parameter.numel() for parameter in made.parameters()) == 4_738_816
    assert (
        sum(parameter.numel() for parameter in build_aggregator(AggregatorConfig(kind="average"), 256).parameters())
        == 0
    )


def test_average_is_the_mean_of_the_real_vectors():
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    got = build_aggregator(AggregatorConfig(kind="average"), 2)(x, mask)
    assert got.tolist() == [[2.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("changes", "order_matters"),
    [({"kind": "average"}, False), ({}, True), ({"positions": False}, False)],
)
def test_only_the_position_table_knows_the_order(changes, order_matters):
    x, mask = vectors()
    aggregate = build(**changes)
    expected = aggregate(x, mask)
    moved = (aggregate(x[:, [3, 0, 4, 1, 2]], mask) - expected).abs().max()
    assert moved > 1e-2 if order_matters else moved <= 1e-6 * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("changes", [{"kind": "average"}, {}, {"positions": False}])
def test_padding_never_changes_the_output(changes):
    x, mask = vectors()
    mask[0, 3:], mask[1, 1:], mask[2] = False, False, False
    x = x.masked_fill(~mask[..., None], float("nan"))
    aggregate = build(**changes)
    got = aggregate(x, mask)
    assert torch.isfinite(got).all()
    assert torch.equal(got, aggregate(x.masked_fill(~mask[..., None], 1e4), mask))
    assert not torch.isclose(got[1], got[2]).all()
    x.requires_grad_()
    aggregate(x, mask).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in aggregate.parameters())
    assert torch.equal(x.grad.abs().sum(-1) > 0, mask)


def test_a_padded_table_equals_a_shorter_one():
    x, mask = vectors()
    long, short = build(), build(num_clips=3)
    state = long.state_dict()
    short.load_state_dict(state | {"positions_CD": state["positions_CD"][:3]})
    mask[:, 3:] = False
    torch.testing.assert_close(long(x, mask), short(x[:, :3], mask[:, :3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_another_number_of_vectors_is_an_error(count):
    with pytest.raises(UserError, match=f"got {count}; expected aggregator.num_clips=5"):
        build()(torch.zeros(2, count, 8), torch.ones(2, count, dtype=torch.bool))


def test_every_parameter_is_used():
    x, mask = vectors()
    aggregate = build(stochastic_depth=0.0).train()
    aggregate(x, mask).square().mul(torch.arange(8.0)).sum().backward()
    assert [name for name, p in aggregate.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_starts_with_small_normal_weights_and_zero_biases():
    torch.manual_seed(0)
    made = SelfAttentionAggregator(AggregatorConfig(num_layers=1, stochastic_depth=0.1), 256)
    block = made.layers[0]
    for weight in (block.query_key_value.weight, block.mlp_in.weight, made.positions_CD, made.cls_D):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.15)
        assert weight.abs().max() < 0.15
    assert not block.out.bias.any() and not block.mlp_in.bias.any()
    assert block.query_key_value.bias is None
    assert made.norm.weight.eq(1).all()


def test_stochastic_depth_rises_linearly_and_leaves_the_mean():
    assert [layer.drop_rate for layer in build(stochastic_depth=0.1).layers] == pytest.approx([0, 0.05, 0.1])
    torch.manual_seed(0)
    block = PreNormBlock(4, 2, drop_rate=0.5)
    branch = torch.ones(20_000, 1, 4)
    thinned = block.train()._thinned(branch)
    assert sorted(set(thinned.flatten().tolist())) == [0.0, 2.0]
    assert thinned.var(dim=2).max() == 0  # a branch is left out for a whole sample
    assert float(thinned.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(block.eval()._thinned(branch), branch)


def test_equals_torchs_layer():
    torch.manual_seed(0)
    block = PreNormBlock(8, 2).eval()
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.query_key_value.weight)
        theirs.self_attn.in_proj_bias.zero_()
        for own, other in (
            (block.out, theirs.self_attn.out_proj),
            (block.mlp_in, theirs.linear1),
            (block.mlp_out, theirs.linear2),
        ):
            other.weight.copy_(own.weight)
            other.bias.copy_(own.bias)
    x, mask = vectors()
    mask[0, 3:] = False
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(x, mask)[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="a divisor of the width 8"):
        build(num_heads=3)
    with pytest.raises(UserError, match="num_clips"):
        AggregatorConfig(num_clips=0)
    with pytest.raises(UserError, match="stochastic_depth"):
        AggregatorConfig(stochastic_depth=1.0)
