import torch

from hvlm.losses.batch import LevelNodes
from hvlm.losses.cross_scale import cross_scale_loss
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig


def levels(z: torch.Tensor, lengths: list[int]) -> tuple[LevelNodes, ...]:
    """Mean-pooled pyramid of z, with the nodes themselves as predictions."""
    mask = torch.arange(z.shape[1]) < torch.tensor(lengths)[:, None]
    times = torch.zeros(mask.shape)
    pyramid = AttentionPyramid(PyramidConfig(), z.shape[2])
    return tuple(LevelNodes(v.nodes_BLD, v.nodes_BLD, v.mask_BL) for v in pyramid(z, times, mask))


def loss(nodes: tuple[LevelNodes, ...], seed: int = 0) -> torch.Tensor:
    return cross_scale_loss(nodes, torch.Generator().manual_seed(seed), parents_per_video=16)


def videos(spread: float) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(4, 1, 16, generator=g) * spread + torch.randn(4, 9, 16, generator=g)


def test_collapse_gives_chance_and_separate_videos_give_less() -> None:
    lengths = [9, 9, 9, 9]
    separate, mixed = loss(levels(videos(5.0), lengths)), loss(levels(videos(0.0), lengths))
    collapsed = loss(levels(torch.ones(4, 9, 16), lengths))
    # 1 positive against 3 other videos x 16 candidates, all alike.
    torch.testing.assert_close(collapsed, torch.tensor(49.0).log())
    assert separate < 0.3 < mixed < collapsed


def test_wrong_children_cost_more() -> None:
    nodes = levels(videos(5.0), [9, 8, 5, 3])
    shuffled = tuple(LevelNodes(n.projected_NLZ, n.predicted_NLZ.roll(1, dims=0), n.mask_NL) for n in nodes)
    assert loss(shuffled) > 3 * loss(nodes)


def test_padding_does_not_matter() -> None:
    z = videos(1.0)
    short = levels(z, [9, 8, 2, 1])
    # 14 rows give as many levels as 9 rows (4).
    long = levels(torch.cat([z, torch.full((4, 5, 16), 1e6)], dim=1), [9, 8, 2, 1])
    torch.testing.assert_close(loss(long), loss(short))


def test_children_get_no_gradient_and_parents_do() -> None:
    z = videos(1.0).requires_grad_()
    nodes = levels(z, [9, 9, 9, 9])
    (gradient,) = torch.autograd.grad(loss(nodes), z)
    assert gradient.abs().sum() > 0
    targets = [n.projected_NLZ.detach().requires_grad_() for n in nodes]
    anchors = [n.predicted_NLZ.detach().requires_grad_() for n in nodes]
    own = tuple(LevelNodes(t, a, n.mask_NL) for t, a, n in zip(targets, anchors, nodes, strict=True))
    gradients = torch.autograd.grad(loss(own), [*targets, *anchors], allow_unused=True)
    assert all(g is None for g in gradients[: len(targets)])
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[len(targets) + 1 :])


def test_without_a_level_above_the_loss_is_zero_with_a_graph() -> None:
    z = torch.randn(3, 1, 4, requires_grad=True)
    value = loss(levels(z, [1, 1, 1]))
    assert value == 0
    value.backward()
    assert z.grad is not None
