"""What a localisation head learns: assignments by hand, losses by hand, a gradient for every part."""

import math

import pytest
import torch

from hvlm.losses.detection import (
    TrueSegments,
    assign_segments,
    diou_loss,
    focal_loss,
    localisation_losses,
)
from hvlm.models.localisation_head import LocalisationHead, LocalisationHeadConfig, NodeGrid, decode_offsets, node_grid
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig

CONFIG = LocalisationHeadConfig(hidden=8, num_layers=2, dropout=0.0, nodes_per_segment=4, centre_radius=1.5)


def _grid(num_rows: int = 32, num_videos: int = 1) -> NodeGrid:
    """Videos of one row per second."""
    cells = torch.stack([torch.arange(num_rows), torch.arange(1, num_rows + 1)], dim=1).float()
    cells = cells.expand(num_videos, -1, -1)
    mask = torch.ones(cells.shape[:2], dtype=torch.bool)
    rows = torch.randn(num_videos, num_rows, 4, generator=torch.Generator().manual_seed(0))
    return node_grid(AttentionPyramid(PyramidConfig(), 4)(rows, cells[..., 0], mask), cells, mask)


def _assign(grid: NodeGrid, *segments: tuple[float, float, int]):
    span, label = torch.tensor([s[:2] for s in segments]).view(-1, 2), torch.tensor([s[2] for s in segments]).long()
    return assign_segments(grid, [TrueSegments(span, label)], 3, CONFIG)


def _found(grid: NodeGrid, targets) -> list[tuple[int, float]]:
    """(level, moment) of the nodes that find something."""
    return [(int(grid.level_P[p]), float(grid.centre_BP[0, p])) for p in torch.nonzero(targets.found_BP[0])[:, 0]]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((10.0, 15.0), [(0, 11.5), (0, 12.5), (0, 13.5)]),  # 5 rows: level 0, middle 12.5, 1.5 rows to each side
        ((10.0, 17.9), [(0, 12.5), (0, 13.5), (0, 14.5)]),
        ((10.0, 18.0), [(1, 11.0), (1, 13.0), (1, 15.0), (1, 17.0)]),  # 8 rows are 4 nodes of level 1
        ((9.0, 27.0), [(2, 14.0), (2, 18.0), (2, 22.0)]),
        ((0.0, 32.0), [(3, 4.0), (3, 12.0), (3, 20.0), (3, 28.0)]),
        ((10.2, 12.0), [(0, 10.5), (0, 11.5)]),  # shorter than four rows: the rows in it
        ((10.6, 10.9), [(0, 10.5)]),  # shorter than a row: the nearest one
    ],
)
def test_the_nodes_of_one_segment(span, expected):
    grid = _grid()
    targets = _assign(grid, (*span, 1))
    assert _found(grid, targets) == expected
    assert targets.label_BPC[0].sum(0).tolist() == [0, len(expected), 0]
    decoded = decode_offsets(targets.offset_BP2, grid)[targets.found_BP]
    torch.testing.assert_close(decoded, torch.tensor(span).expand_as(decoded))


def test_the_shorter_segment_has_the_node_and_equal_ones_share_it():
    grid = _grid()
    targets = _assign(grid, (10.0, 15.0, 0), (11.0, 14.0, 1))
    assert _found(grid, targets) == [(0, 11.5), (0, 12.5), (0, 13.5)]
    assert targets.label_BPC[0][targets.found_BP[0]].tolist() == [[0, 1, 0]] * 3
    shared = _assign(grid, (10.0, 15.0, 0), (10.0, 15.0, 2), (10.0, 15.0, 2))
    assert shared.label_BPC[0][shared.found_BP[0]].tolist() == [[1, 0, 1]] * 3
    # of equal length, but not the same: the first one
    first = _assign(grid, (10.0, 15.0, 0), (11.0, 16.0, 1))
    assert [row for row in first.label_BPC[0].tolist() if any(row)] == [[1, 0, 0]] * 3 + [[0, 1, 0]]


def test_the_top_takes_what_is_longer_than_its_video() -> None:
    grid = _grid(2)
    assert _found(grid, _assign(grid, (0.0, 40.0, 1))) == [(1, 1.0)]


def test_nothing_is_found_in_an_empty_video():
    grid = _grid(num_videos=2)
    empty = TrueSegments(torch.empty(0, 2), torch.empty(0, dtype=torch.long))
    one = TrueSegments(torch.tensor([[0.0, 4.0]]), torch.tensor([0]))
    targets = assign_segments(grid, [empty, one], 3, CONFIG)
    assert targets.found_BP.any(1).tolist() == [False, True]
    head = LocalisationHead(4, 3, CONFIG)
    logits, offsets = head(grid)
    bare = assign_segments(grid, [empty, empty], 3, CONFIG)
    losses = localisation_losses(logits, offsets, bare, grid.mask_BP)
    assert float(losses["offsets"]) == 0.0
    assert float(losses["total"]) == float(losses["classes"]) > 0


def test_losses_by_hand():
    # a logit of 0 is right by half: .25 x .5^2 x ln 2 for a yes, .75 of it for a no
    loss = focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([[0.25, 0.75]]) * 0.25 * math.log(2))
    reach, truth = (
        torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.0, 3.0]]),
        torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]),
    )
    # equal; twice as long: IoU 1/2; [-1, 3] and [-1, 1]: IoU 1/2 and the middles 1 of 4 apart
    torch.testing.assert_close(diou_loss(reach, truth), torch.tensor([0.0, 0.5, 0.5 + 1 / 16]))
    # the truth lies beside the moment: [-2, 2] and [1, 2]
    torch.testing.assert_close(
        diou_loss(torch.tensor([[2.0, 2.0]]), torch.tensor([[-1.0, 2.0]])), torch.tensor([1 - 1 / 4 + (1.5 / 4) ** 2])
    )
    apart = diou_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 2.0]]))  # [-1, 0] and [1, 2]
    torch.testing.assert_close(apart, torch.tensor([1 + (2 / 3) ** 2]))


def test_the_losses_are_per_node_that_finds_a_segment():
    grid = _grid(num_videos=2)
    truth = TrueSegments(torch.tensor([[10.0, 15.0]]), torch.tensor([1]))
    head = LocalisationHead(4, 3, CONFIG)
    once = NodeGrid(*(x if i == 2 else x[:1] for i, x in enumerate(grid)))
    logits, offsets = head(once)
    one = localisation_losses(logits, offsets, assign_segments(once, [truth], 3, CONFIG), once.mask_BP)
    twice = NodeGrid(*(x if i == 2 else x[:1].expand(2, *x.shape[1:]) for i, x in enumerate(grid)))
    logits, offsets = head(twice)
    two = localisation_losses(logits, offsets, assign_segments(twice, [truth, truth], 3, CONFIG), twice.mask_BP)
    torch.testing.assert_close(one, two)


def test_the_gradient_reaches_all_parts():
    grid = _grid(64)
    head = LocalisationHead(4, 3, CONFIG)
    truth = TrueSegments(torch.tensor([[10.0, 15.0], [20.0, 60.0]]), torch.tensor([0, 2]))
    logits, offsets = head(grid)
    localisation_losses(logits, offsets, assign_segments(grid, [truth], 3, CONFIG), grid.mask_BP)["total"].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    # the offsets' scale is learnt at the levels that find something, and at no other
    assert torch.nonzero(head.scale_L.grad)[:, 0].tolist() == [0, 3]
