import math

import pytest
import torch
from torch import Tensor

from hvlm.errors import UserError
from hvlm.losses.ego_nce import (
    ChildRows,
    EgoNCEConfig,
    ParentRows,
    ParentTermsConfig,
    child_loss,
    cosine_matrix,
    ego_nce,
    parent_loss,
    parent_positives,
    tag_positives,
)

SIMILARITY = torch.tensor(
    [[0.9, 0.2, 0.1, 0.0], [0.3, 0.8, 0.4, 0.1], [0.1, 0.5, 0.7, 0.2], [0.0, 0.1, 0.3, 0.6]], dtype=torch.float64
)
ALL = torch.ones(4, dtype=torch.bool)


def multi_hot(tags: list[list[int]], size: int) -> Tensor:
    rows = torch.zeros(len(tags), size)
    for row, ids in enumerate(tags):
        rows[row, ids] = 1
    return rows


VERBS = multi_hot([[1], [1, 2], [2], []], 118)
NOUNS = multi_hot([[5], [5], [6], [5]], 582)


def pairs(mask: Tensor) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in mask.nonzero() if i != j}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("both", {(0, 1)}),
        ("verb", {(0, 1), (1, 2)}),
        ("noun", {(0, 1), (0, 3), (1, 3)}),
        ("none", set()),
    ],
)
def test_positives_by_shared_tags(tags, expected):
    mask = tag_positives(VERBS, NOUNS, tags)
    assert pairs(mask) == expected | {(j, i) for i, j in expected}
    assert mask.diagonal().all()
    assert torch.equal(tag_positives(VERBS.bool(), NOUNS.to(torch.uint8), tags), mask)


def test_without_any_tag_only_the_own_pair_is_positive():
    assert torch.equal(tag_positives(0 * VERBS, 0 * NOUNS, "both"), torch.eye(4, dtype=torch.bool))


# Specification of HierVL, section 1.2, calculated in float64 by other code.
@pytest.mark.parametrize(
    ("temperature", "text_to_video", "video_to_text", "total", "identity"),
    [
        (0.05, 0.00526600, 0.00141999, 0.00668599, 0.00670062),
        (0.07, 0.01868887, 0.00877488, 0.02746375, 0.02776736),
        (1.00, 0.78790351, 0.78776319, 1.57566670, 2.01372643),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_values(temperature, text_to_video, video_to_text, total, identity, dtype):
    mask = tag_positives(VERBS, NOUNS, "both")
    got = ego_nce(SIMILARITY.to(dtype), mask, temperature, ALL)
    assert got.text_to_video.dtype == dtype
    assert float(got.text_to_video) == pytest.approx(text_to_video, abs=1e-6 if dtype == torch.float32 else 2e-8)
    assert float(got.video_to_text) == pytest.approx(video_to_text, abs=1e-6)
    assert float(got.total) == pytest.approx(total, abs=1e-6)
    assert float(ego_nce(SIMILARITY.to(dtype), torch.eye(4).bool(), temperature, ALL).total) == pytest.approx(
        identity, abs=1e-6
    )
    assert float(got.positives_per_row) == 1.5


def vectors_of(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Text and video rows of various lengths with these cosines: text on the axes, video with a rest on a fifth."""
    count = len(similarity)
    rest = torch.diag((1 - similarity.square().sum(0)).sqrt())
    text = torch.cat([torch.eye(count), torch.zeros(count, count)], dim=1) * torch.tensor([[2.0], [0.1], [1.0], [9.0]])
    video = torch.cat([similarity.T, rest], dim=1).float() * torch.tensor([[3.0], [1.0], [0.2], [5.0]])
    return text, video


def test_the_child_loss_gives_the_golden_values_from_vectors_that_are_not_normalised():
    text, video = vectors_of(SIMILARITY)
    rows = ChildRows(text, video, VERBS, NOUNS, ALL)
    losses = child_loss(rows, EgoNCEConfig())
    assert float(losses["total"]) == pytest.approx(0.00668599, abs=1e-6)
    assert float(losses["text_to_video"]) == pytest.approx(0.00526600, abs=1e-6)
    assert float(child_loss(rows, EgoNCEConfig(tags="none"))["total"]) == pytest.approx(0.00670062, abs=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(child_loss(rows, EgoNCEConfig())["total"]) == float(losses["total"])


def test_equal_captions_are_positives_unless_only_the_own_pair_is():
    text, video = vectors_of(SIMILARITY)
    none = torch.zeros(4, 0)
    rows = ChildRows(text, video, none, none, ALL, torch.tensor([8, 8, 9, 7]))  # the pair that VERBS and NOUNS make
    assert float(child_loss(rows, EgoNCEConfig())["total"]) == pytest.approx(0.00668599, abs=1e-6)
    assert float(child_loss(rows, EgoNCEConfig())["positives_per_row"]) == 1.5
    assert float(child_loss(rows, EgoNCEConfig(tags="none"))["total"]) == pytest.approx(0.00670062, abs=1e-6)


def test_equals_the_sums_of_the_formula():
    g = torch.Generator().manual_seed(0)
    cosines = torch.rand(6, 6, generator=g, dtype=torch.float64) * 2 - 1
    half = torch.rand(6, 6, generator=g) < 0.2
    mask = half | half.T | torch.eye(6).bool()
    expected = 0.0
    for s, own in ((cosines, mask), (cosines.T, mask)):
        for i in range(6):
            weights = [math.exp(float(s[i, j]) / 0.3) for j in range(6)]
            expected -= math.log(sum(w for j, w in enumerate(weights) if own[i, j]) / sum(weights)) / 6
    assert float(ego_nce(cosines, mask, 0.3, torch.ones(6).bool()).total) == pytest.approx(expected, rel=1e-9)


def test_worst_case_is_finite_at_a_low_temperature():
    s = (1 - 2 * torch.eye(2)).requires_grad_()
    loss = ego_nce(s, torch.eye(2).bool(), 0.01, torch.ones(2).bool()).total
    loss.backward()
    assert float(loss.detach()) == pytest.approx(400.0)
    assert torch.isfinite(s.grad).all()


def child_rows(count: int, seed: int = 0) -> ChildRows:
    g = torch.Generator().manual_seed(seed)
    return ChildRows(
        torch.randn(count, 5, generator=g),
        torch.randn(count, 5, generator=g),
        (torch.rand(count, 6, generator=g) < 0.4).float(),
        (torch.rand(count, 6, generator=g) < 0.4).float(),
        torch.ones(count, dtype=torch.bool),
    )


def test_rows_that_fill_the_batch_change_neither_value_nor_gradient():
    plain = child_rows(5)
    text, video = plain.text_NE.clone().requires_grad_(), plain.video_NE.clone().requires_grad_()
    child_loss(plain._replace(text_NE=text, video_NE=video), EgoNCEConfig())["total"].backward()

    valid = torch.tensor([True, False, True, True, True, False, True])
    filled = ChildRows(*(torch.full((7, x.shape[1]), float("nan")) for x in plain[:4]), valid)
    for target, source in zip(filled[:4], plain[:4], strict=True):
        target[valid] = source
    filled.verbs_NA[~valid] = filled.nouns_NO[~valid] = 1
    filled.text_NE.requires_grad_(), filled.video_NE.requires_grad_()
    losses = child_loss(filled, EgoNCEConfig())
    losses["total"].backward()
    expected = child_loss(plain, EgoNCEConfig())
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    torch.testing.assert_close(filled.text_NE.grad[valid], text.grad)
    torch.testing.assert_close(filled.video_NE.grad[valid], video.grad)
    assert not filled.text_NE.grad[~valid].any()


def test_without_a_valid_row_the_loss_is_zero_and_so_is_its_gradient():
    rows = child_rows(3)
    text = rows.text_NE.requires_grad_()
    loss = child_loss(rows._replace(valid_N=torch.zeros(3).bool()), EgoNCEConfig())["total"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert not text.grad.any()


def parent_rows(count: int, seed: int = 0) -> ParentRows:
    g = torch.Generator().manual_seed(seed)
    return ParentRows(
        torch.randn(count, 5, generator=g),
        torch.randn(count, 5, generator=g),
        torch.randn(count, 5, generator=g),
        torch.ones(count, dtype=torch.bool),
        torch.ones(count, dtype=torch.bool),
        torch.ones(count, dtype=torch.bool),
        torch.arange(count),
        torch.tensor([[0.0, 10.0]]).expand(count, 2),
        torch.arange(count),
    )


def test_parent_positives_are_overlapping_parts_of_a_video_and_equal_summaries():
    spans = torch.tensor([[0.0, 10.0], [9.0, 20.0], [10.0, 20.0], [0.0, 10.0], [30.0, 40.0]])
    rows = parent_rows(5)._replace(
        video_N=torch.tensor([7, 7, 7, 8, 9]), span_s_N2=spans, summary_N=torch.tensor([0, 1, 2, 3, 0])
    )
    mask = parent_positives(rows)
    # 0 ends where 2 begins: half-open spans do not overlap. 3 is another video. 4 has the summary of 0.
    assert pairs(mask) == {(0, 1), (1, 0), (1, 2), (2, 1), (0, 4), (4, 0)}
    assert mask.diagonal().all()


TERMS = {
    "summary_video": (2, 0),
    "summary_caption": (2, 1),
    "caption_video": (1, 0),
}


@pytest.mark.parametrize("on", [{name} for name in TERMS] + [{"summary_video", "summary_caption"}, set(TERMS)])
def test_each_parent_term_can_be_switched_by_itself(on):
    rows = ParentRows(*(x.requires_grad_() if x.is_floating_point() and x.shape[1] == 5 else x for x in parent_rows(6)))
    mask = parent_positives(rows)
    losses = parent_loss(rows, mask, EgoNCEConfig(), ParentTermsConfig(**{name: name in on for name in TERMS}))
    assert losses.keys() == on | {"total"}
    for name in on:
        text, video = (rows[side] for side in TERMS[name])
        expected = ego_nce(cosine_matrix(text, video, rows.valid_N), mask, 0.05, rows.valid_N).total
        torch.testing.assert_close(losses[name], expected)
    torch.testing.assert_close(losses["total"], sum(losses[name] for name in on))
    losses["total"].backward()
    reached = {side for name in on for side in TERMS[name]}
    assert {side for side in range(3) if rows[side].grad is not None} == reached


def test_a_sample_without_captions_takes_part_only_in_the_term_of_summary_and_video():
    has = torch.tensor([True, True, False, True])
    rows = parent_rows(4)._replace(has_captions_N=has)
    rows.captions_NE[2] = float("nan")
    every = ParentTermsConfig(caption_video=True)
    losses = parent_loss(rows, parent_positives(rows), EgoNCEConfig(), every)
    told = ParentRows(*(x[has] for x in rows))
    expected = parent_loss(told, parent_positives(told), EgoNCEConfig(), every)
    torch.testing.assert_close(losses["summary_caption"], expected["summary_caption"])
    torch.testing.assert_close(losses["caption_video"], expected["caption_video"])
    whole = parent_loss(parent_rows(4), parent_positives(rows), EgoNCEConfig(), every)
    torch.testing.assert_close(losses["summary_video"], whole["summary_video"])


def test_a_summary_made_of_the_captions_is_not_contrasted_with_them():
    own = torch.tensor([True, True, False, True])
    rows, every = parent_rows(4), ParentTermsConfig(caption_video=True)
    losses = parent_loss(rows._replace(own_summary_N=own), parent_positives(rows), EgoNCEConfig(), every)
    whole = parent_loss(rows, parent_positives(rows), EgoNCEConfig(), every)
    told = ParentRows(*(x[own] for x in rows))
    expected = parent_loss(told, parent_positives(told), EgoNCEConfig(), every)
    torch.testing.assert_close(losses["summary_caption"], expected["summary_caption"])
    torch.testing.assert_close(losses["caption_video"], whole["caption_video"])
    torch.testing.assert_close(losses["summary_video"], whole["summary_video"])
    assert not torch.isclose(losses["summary_video"], expected["summary_video"])


def gradient_over_ranks(level: str, world: int, factor: int) -> tuple[list[float], Tensor]:
    """The loss that each rank calculates of the gathered rows, and the mean over ranks of the weight's gradient when a
    rank's own rows alone carry one, times `factor`: what gather and DDP make of it."""
    torch.manual_seed(0)
    weight = torch.randn(5, 5)
    rows = child_rows(8) if level == "child" else parent_rows(8)
    num_vectors = 2 if level == "child" else 3
    values, mean = [], torch.zeros(5, 5)
    for rank in range(world):
        own = slice(rank * 8 // world, (rank + 1) * 8 // world)
        local = weight.clone().requires_grad_()
        vectors = []
        for x in rows[:num_vectors]:
            gathered = (x @ weight).clone()
            gathered[own] = x[own] @ local
            vectors.append(gathered)
        whole = type(rows)(*vectors, *rows[num_vectors:])
        loss = (
            child_loss(whole, EgoNCEConfig())
            if isinstance(whole, ChildRows)
            else parent_loss(whole, parent_positives(whole), EgoNCEConfig(), ParentTermsConfig(caption_video=True))
        )
        loss["total"].backward()
        values.append(float(loss["total"].detach()))
        mean += factor * local.grad / world
    return values, mean


@pytest.mark.parametrize("level", ["child", "parent"])
@pytest.mark.parametrize("world", [2, 4])
def test_slices_of_many_ranks_equal_one_process(level, world):
    (expected,), gradient = gradient_over_ranks(level, 1, 1)
    values, mean = gradient_over_ranks(level, world, world)
    assert values == pytest.approx([expected] * world, rel=1e-6)
    torch.testing.assert_close(mean, gradient, rtol=1e-5, atol=1e-6)
    # Without the factor W in the gather's backward the gradient is 1 / W of the true one.
    torch.testing.assert_close(gradient_over_ranks(level, world, 1)[1] * world, gradient, rtol=1e-5, atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="temperature"):
        EgoNCEConfig(temperature=0)
    with pytest.raises(UserError, match="at least one term"):
        ParentTermsConfig(summary_video=False, summary_caption=False)
