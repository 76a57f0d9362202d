import pytest
import torch

from hvlm.models.pyramid import AttentionPyramid, PyramidConfig, frame_spans, level_lengths, spans_in_seconds


def pyramid(width: int = 4, *, config: PyramidConfig | None = None, scores: float = 1.0) -> AttentionPyramid:
    torch.manual_seed(0)
    module = AttentionPyramid(config or PyramidConfig(), width)
    with torch.no_grad():
        module.scores_LD.normal_(std=scores)
    return module


def rows(length: int, width: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(length)[None] * 0.64, torch.ones(1, length, dtype=torch.bool)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (250, [250, 125, 62, 31, 15, 7, 3, 1]),
        (336, [336, 168, 84, 42, 21, 10, 5, 2, 1]),
        (1000, [1000, 500, 250, 125, 62, 31, 15, 7, 3, 1]),
        (1, [1]),
    ],
)
def test_level_lengths(length: int, expected: list[int]) -> None:
    assert level_lengths(length) == expected
    levels = pyramid()(*rows(length))
    assert [int(level.mask_BL.sum()) for level in levels] == expected
    assert [level.nodes_BLD.shape[1] for level in levels] == expected
    if length == 250:
        assert sum(expected) == 494


def test_zero_scores_are_mean_pooling_with_the_remainder_in_the_last_node() -> None:
    x, times, mask = rows(7)
    levels = AttentionPyramid(PyramidConfig(), 4)(x, times, mask)
    expected = torch.stack([x[0, 0:2].mean(0), x[0, 2:4].mean(0), x[0, 4:7].mean(0)])
    torch.testing.assert_close(levels[1].nodes_BLD[0], expected)
    torch.testing.assert_close(levels[2].nodes_BLD[0, 0], expected.mean(0))


def test_window_softmax_is_the_renormalised_global_softmax() -> None:
    module = pyramid()
    x, times, mask = rows(9)
    level = module(x, times, mask)[1]
    share = (x[0] @ module.scores_LD[0] / 2.0).softmax(0)
    for node, members in enumerate(([0, 1], [2, 3], [4, 5], [6, 7, 8])):
        weights = share[members] / share[members].sum()
        assert level.weights_BL3 is not None
        torch.testing.assert_close(level.weights_BL3[0, node, : len(members)], weights, atol=1e-6, rtol=0)
        torch.testing.assert_close(level.nodes_BLD[0, node], weights @ x[0, members], atol=1e-6, rtol=0)


@pytest.mark.parametrize("refine", ["none", "ffn"])
def test_padded_equals_video_by_video(refine: str) -> None:
    module = pyramid(config=PyramidConfig(refine=refine))  # type: ignore[arg-type]
    lengths = [37, 36, 9, 2, 1]
    x = torch.full((5, 40, 4), 1e6)
    times = torch.arange(40.0).expand(5, -1)
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    videos = [rows(length, seed=length)[0] for length in lengths]
    for index, (length, video) in enumerate(zip(lengths, videos, strict=True)):
        x[index, :length] = video[0]
    together = module(x, times, mask)
    for index, (length, video) in enumerate(zip(lengths, videos, strict=True)):
        alone = module(video, times[:1, :length], mask[index : index + 1, :length])
        for own, level in zip(alone, together, strict=False):
            count = own.nodes_BLD.shape[1]
            torch.testing.assert_close(level.nodes_BLD[index, :count], own.nodes_BLD[0], atol=1e-6, rtol=0)
            torch.testing.assert_close(level.spans_s_BL2[index, :count], own.spans_s_BL2[0])
            assert level.nodes_BLD[index, count:].abs().sum() == 0
        # A video that has reached one node stays as it is while longer ones go on.
        torch.testing.assert_close(together[-1].nodes_BLD[index, 0], alone[-1].nodes_BLD[0, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 31, 250, 336, 1000])
def test_spans_of_every_level_tile_the_video(length: int) -> None:
    levels = pyramid()(*rows(length))
    for level in levels:
        spans = level.frame_spans_BL2[0]
        assert spans[0, 0] == 0
        assert spans[-1, 1] == length
        assert torch.equal(spans[1:, 0], spans[:-1, 1])
        assert (spans[:, 1] > spans[:, 0]).all()
        seconds = level.spans_s_BL2[0]
        torch.testing.assert_close(seconds[:, 0], spans[:, 0] * 0.64)
        if length > 1:
            torch.testing.assert_close(seconds[:, 1], spans[:, 1] * 0.64)


def test_a_node_depends_on_exactly_the_rows_of_its_span() -> None:
    module = pyramid()
    x, times, mask = rows(11)
    x.requires_grad_()
    for level in module(x, times, mask):
        for node in range(level.nodes_BLD.shape[1]):
            (gradient,) = torch.autograd.grad(level.nodes_BLD[0, node].sum(), x, retain_graph=True)
            touched = gradient[0].abs().sum(-1) > 0
            first, end = level.frame_spans_BL2[0, node].tolist()
            assert touched.nonzero().flatten().tolist() == list(range(first, end))


def test_span_of_one_row_is_empty_and_padded_nodes_are_zero() -> None:
    spans = frame_spans(torch.tensor([1, 3]), 0, 3)
    assert spans[0].tolist() == [[0, 1], [0, 0], [0, 0]]
    times = torch.tensor([[2.0, 9.0, 9.0], [0.0, 1.0, 3.0]])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert spans_in_seconds(spans, times, mask).tolist() == [[[2, 2], [0, 0], [0, 0]], [[0, 1], [1, 3], [3, 4.5]]]


def test_scores_get_gradients_and_have_the_stated_size() -> None:
    module = AttentionPyramid(PyramidConfig(max_reductions=7), 1024)
    assert sum(p.numel() for p in module.parameters()) == 7168
    assert AttentionPyramid(PyramidConfig(shared_scores=True), 8).scores_LD.shape == (1, 8)
    small = AttentionPyramid(PyramidConfig(max_reductions=2), 4)
    small(*rows(20))[-1].nodes_BLD.square().sum().backward()
    assert small.scores_LD.grad is not None
    assert (small.scores_LD.grad.abs().sum(1) > 0).all()
