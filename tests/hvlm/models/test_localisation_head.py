"""The localisation head: where the nodes lie in time, offsets there and back, no look into padding or other levels."""

import numpy as np
import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.localisation_head import (
    LocalisationHead,
    LocalisationHeadConfig,
    decode_offsets,
    encode_offsets,
    node_grid,
)
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig

CONFIG = LocalisationHeadConfig(hidden=8, num_layers=1, dropout=0.0)


def _grid(lengths, width=4, longest=None, junk=0.0, stride=2.0):
    """Videos of one row every `stride` seconds, padded with `junk`."""
    longest = longest or max(lengths)
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    rows, cells = torch.full((len(lengths), longest, width), junk), torch.full((len(lengths), longest, 2), junk)
    for video, length in enumerate(lengths):
        rows[video, :length] = torch.randn(length, width, generator=generator)
        starts = stride * torch.arange(length)
        cells[video, :length] = torch.stack([starts, starts + stride], dim=1)
    return node_grid(AttentionPyramid(PyramidConfig(), width)(rows, cells[..., 0], mask), cells, mask)


def test_places_of_five_rows():
    grid = _grid([5])
    # levels of 5, 2 and 1 nodes, an empty place after each; the last node of two takes the fifth row
    assert grid.level_P.tolist() == [0] * 6 + [1] * 3 + [2] * 2
    assert grid.mask_BP[0].tolist() == [True] * 5 + [False] + [True] * 2 + [False] + [True] + [False]
    assert grid.centre_BP[0, grid.mask_BP[0]].tolist() == [1, 3, 5, 7, 9, 2, 7, 5]
    assert grid.unit_BP[0].tolist() == [2] * 6 + [4] * 3 + [8] * 2
    assert not grid.nodes_BPD[0, ~grid.mask_BP[0]].any()


def test_a_short_video_has_no_nodes_above_its_own_levels():
    grid = _grid([9, 2])
    assert grid.level_P[grid.mask_BP[1]].tolist() == [0, 0, 1]


def test_nodes_over_a_gap_are_left_out():
    cells = torch.tensor([[[0.0, 1], [1, 2], [7, 8], [8, 9]]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    grid = node_grid(AttentionPyramid(PyramidConfig(), 2)(torch.ones(1, 4, 2), cells[..., 0], mask), cells, mask)
    assert grid.centre_BP[grid.mask_BP].tolist() == [0.5, 1.5, 7.5, 8.5, 1, 8]


def test_decoding_is_the_inverse_of_encoding():
    grid = _grid([12, 7])
    starts = 20 * torch.rand(*grid.mask_BP.shape, generator=torch.Generator().manual_seed(1))
    spans = torch.stack([starts, starts + 3], dim=-1)
    torch.testing.assert_close(decode_offsets(encode_offsets(spans, grid), grid), spans)
    # the second node of level 1 has its moment at 6 s and a unit of 4 s
    place = int(torch.nonzero(grid.level_P == 1)[1])
    spans[0, place] = torch.tensor([4.0, 14.0])
    assert encode_offsets(spans, grid)[0, place].tolist() == [0.5, 2.0]


def test_padding_does_not_matter():
    torch.manual_seed(0)
    head = LocalisationHead(4, 3, CONFIG).eval()
    alone, padded = _grid([7]), _grid([7, 20], longest=40, junk=1e6)
    for one, other in zip(head(alone), head(padded), strict=True):
        torch.testing.assert_close(other[0, padded.mask_BP[0]], one[0, alone.mask_BP[0]], rtol=1e-4, atol=1e-5)
        assert not other[~padded.mask_BP].any()


def test_levels_do_not_look_into_each_other():
    torch.manual_seed(0)
    head, grid = LocalisationHead(4, 3, CONFIG).eval(), _grid([16])
    changed = grid._replace(nodes_BPD=grid.nodes_BPD + 5.0 * (grid.level_P == 1)[:, None] * grid.mask_BP[..., None])
    for one, other in zip(head(grid), head(changed), strict=True):
        same = (one == other).all(-1)[0]
        assert same[(grid.level_P != 1)].all()
        assert not same[(grid.level_P == 1) & grid.mask_BP[0]].any()


def test_what_a_new_head_says():
    torch.manual_seed(0)
    grid = _grid([16])
    logits, offsets = LocalisationHead(4, 3, CONFIG)(grid)
    mask = grid.mask_BP
    assert logits.shape == (*mask.shape, 3)
    assert 0.001 < float(logits[mask].detach().sigmoid().mean()) < 0.1  # nearly all is background
    np.testing.assert_allclose(float(offsets[mask].detach().mean()), 3.0, atol=1.0)
    assert (offsets >= 0).all()


@pytest.mark.parametrize(
    "wrong", [{"hidden": 0}, {"num_layers": 0}, {"dropout": 1.0}, {"nodes_per_segment": 0.0}, {"centre_radius": 0.0}]
)
def test_config_ranges(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        LocalisationHeadConfig(**wrong)
