from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hvlm.errors import UserError
from hvlm.losses.ego_nce import (
    ChildRows,
    EgoNCEConfig,
    ParentRows,
    ParentTermsConfig,
    child_loss,
    parent_loss,
    parent_positives,
)
from hvlm.models.aggregator import AggregatorConfig, build_aggregator
from hvlm.models.clip_encoder import ClipEncoderConfig
from hvlm.models.hiervl import (
    METHODS,
    ChildBatch,
    FrozenTextEncoder,
    HierVL,
    HierVLConfig,
    ParentBatch,
    ScheduleConfig,
    TowerTextEncoder,
    build_hiervl,
    with_preset,
)

SMALL = HierVLConfig(
    clip=ClipEncoderConfig(hidden=16, num_heads=2),
    aggregator=AggregatorConfig(num_clips=4, num_layers=2, num_heads=2),
    dim=16,
)
ATTENTION = HierVLConfig(
    clip=ClipEncoderConfig(kind="attention", hidden=16, num_heads=2), aggregator=SMALL.aggregator, dim=16
)


def build(config: HierVLConfig = SMALL) -> HierVL:
    torch.manual_seed(0)
    return build_hiervl(config, 7, 6)


def parents(count: int = 3) -> ParentBatch:
    g = torch.Generator().manual_seed(1)
    return ParentBatch(
        torch.randn(count, 4, 2, 7, generator=g),
        torch.ones(count, 4, 2, dtype=torch.bool),
        torch.ones(count, 4, dtype=torch.bool),
        torch.randn(count, 4, 6, generator=g),
        torch.ones(count, 4, dtype=torch.bool),
        torch.randn(count, 6, generator=g),
    )


@pytest.mark.parametrize("config", [SMALL, ATTENTION, with_preset(SMALL, "avg")])
def test_both_levels_use_the_same_encoders_in_one_space(config):
    model, batch = build(config).eval(), parents()
    out = model(batch, "parent")
    assert [tuple(x.shape) for x in out] == [(3, 16)] * 3
    child = model(ChildBatch(batch.clips_VCTI[:, 0], batch.frame_mask_VCT[:, 0], batch.summary_VX), "child")
    torch.testing.assert_close(child.text_BE, out.summary_VE)
    clips = [
        model(ChildBatch(batch.clips_VCTI[:, c], batch.frame_mask_VCT[:, c], batch.captions_VCX[:, c]), "child")
        for c in range(4)
    ]
    torch.testing.assert_close(
        model.aggregator(torch.stack([c.video_BE for c in clips], 1), batch.clip_mask_VC), out.video_VE
    )
    torch.testing.assert_close(
        model.aggregator(torch.stack([c.text_BE for c in clips], 1), batch.caption_mask_VC), out.captions_VE
    )
    assert out.video_VE.norm(dim=1).sub(1).abs().min() > 1e-3  # projected, not normalised


@pytest.mark.parametrize("config", [SMALL, ATTENTION, with_preset(SMALL, "avg")])
def test_padding_changes_neither_output_nor_gradient(config):
    batch = parents()
    batch.clip_mask_VC[0, 3], batch.frame_mask_VCT[1, 2, 1], batch.frame_mask_VCT[2, 3] = False, False, False
    batch.caption_mask_VC[1, 2:] = False
    frames = batch.frame_mask_VCT & batch.clip_mask_VC[..., None]

    def run(fill: float) -> tuple[list[Tensor], list[Tensor]]:
        model = build(config).eval()
        out = model(
            batch._replace(
                clips_VCTI=batch.clips_VCTI.masked_fill(~frames[..., None], fill),
                captions_VCX=batch.captions_VCX.masked_fill(~batch.caption_mask_VC[..., None], fill),
            ),
            "parent",
        )
        sum(x.square().sum() for x in out).backward()
        return [x.detach() for x in out], [p.grad for p in model.parameters()]

    for expected, got in zip(run(0.0), run(float("nan")), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    # A clip without a frame is no clip: the third video is as if its last clip were masked.
    gone = batch.clip_mask_VC.clone()
    gone[2, 3] = False
    model = build(config).eval()
    assert torch.equal(model(batch, "parent").video_VE, model(batch._replace(clip_mask_VC=gone), "parent").video_VE)


def test_the_frozen_text_vector_goes_through_relu_and_one_linear_layer():
    encode = FrozenTextEncoder(3, 2)
    assert sum(p.numel() for p in encode.parameters()) == 3 * 2 + 2
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float16)
    torch.testing.assert_close(encode(x), encode.project[-1](torch.tensor([[1.0, 0.0, 3.0]])))


def test_with_a_width_inside_the_text_vector_goes_through_two_layers():
    encode = FrozenTextEncoder(3, 2, hidden=5)
    assert sum(p.numel() for p in encode.parameters()) == (3 * 5 + 5) + (5 * 2 + 2)
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float16)
    assert not torch.allclose(encode(x), encode(x.relu()))  # what is negative counts
    assert build_hiervl(replace(SMALL, text_hidden=5), d_in=4, d_text=3).text_encoder.project[0].out_features == 5


def test_a_text_width_below_1_is_refused():
    with pytest.raises(UserError, match="text_hidden"):
        HierVLConfig(text_hidden=0)


class PixelEncoder(nn.Module):
    """The smallest end-to-end clip encoder: one convolution, mean over real frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, stride=4)

    def forward(self, clip_BT3HW: Tensor, frame_mask_BT: Tensor) -> Tensor:
        frames_BTE = self.conv(clip_BT3HW.flatten(0, 1)).mean((2, 3)).unflatten(0, frame_mask_BT.shape)
        return (frames_BTE * frame_mask_BT[..., None]).sum(1) / frame_mask_BT.sum(1, keepdim=True).clamp_min(1)


class TokenEncoder(nn.Module):
    """A trainable text tower: tokens (B, L) instead of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)

    def forward(self, text_BL: Tensor) -> Tensor:
        return self.words(text_BL).mean(1)


def test_encoders_of_pixels_and_tokens_fit_the_same_model():
    text = TowerTextEncoder(TokenEncoder(), FrozenTextEncoder(6, 16))
    model = HierVL(PixelEncoder(), text, build_aggregator(SMALL.aggregator, 16))
    g = torch.Generator().manual_seed(1)
    batch = parents(2)._replace(
        clips_VCTI=torch.randn(2, 4, 2, 3, 8, 8, generator=g),
        captions_VCX=torch.randint(0, 9, (2, 4, 5), generator=g),
        summary_VX=torch.randint(0, 9, (2, 5), generator=g),
    )
    assert [tuple(x.shape) for x in model(batch, "parent")] == [(2, 16)] * 3
    child = model(ChildBatch(batch.clips_VCTI[:, 0], batch.frame_mask_VCT[:, 0], batch.summary_VX), "child")
    assert [tuple(x.shape) for x in child] == [(2, 16)] * 2


def test_a_batch_of_the_other_level_is_refused():
    with pytest.raises(UserError, match="batch of level 'child': got ParentBatch"):
        build()(parents(), "child")


def test_five_child_steps_then_one_parent_step():
    schedule = ScheduleConfig()
    levels = [schedule.levels(step) for step in range(12)]
    assert levels == ([("child",)] * 5 + [("parent",)]) * 2
    assert ScheduleConfig(child_steps=1).levels(1) == ("parent",)
    assert ScheduleConfig(kind="sum").levels(3) == ("child", "parent")
    assert ScheduleConfig(kind="child").levels(5) == ("child",)
    assert ScheduleConfig(kind="parent").levels(0) == ("parent",)


@pytest.mark.parametrize("kind", ["alternate", "sum", "child", "parent"])
@pytest.mark.parametrize("child_steps", [1, 3, 5])
def test_batches_taken_are_those_of_the_steps_before(kind, child_steps):
    schedule = ScheduleConfig(kind=kind, child_steps=child_steps)
    for step in range(20):
        for level in ("child", "parent"):
            taken = sum(level in schedule.levels(s) for s in range(step))
            assert schedule.batches_before(step, level) == taken


# preset -> aggregator, levels of the first 6 steps (c, p), terms, summaries as captions, start
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sa", ("self_attention", "cccccp", "SV SC", False, "scratch")),
        ("avg", ("average", "cccccp", "SV SC", False, "scratch")),
        ("wo_joint", ("self_attention", "pppppp", "SV SC", False, "child_only")),
        ("wo_hier", ("average", "cccccc", "SV SC", True, "scratch")),
        ("wo_summ", ("self_attention", "cccccp", "CV", False, "scratch")),
        ("wo_summ_narr", ("self_attention", "cccccp", "SV", False, "scratch")),
        ("child_only", ("average", "cccccc", "SV SC", False, "scratch")),
        ("parent_only", ("self_attention", "pppppp", "SV SC", False, "scratch")),
    ],
)
def test_presets(name, expected):
    config = with_preset(SMALL, name)
    levels = "".join(level[0] for step in range(6) for level in config.schedule.levels(step))
    short = {"summary_video": "SV", "summary_caption": "SC", "caption_video": "CV"}
    terms = " ".join(letters for term, letters in short.items() if getattr(config.terms, term))
    assert (config.aggregator.kind, levels, terms, config.summaries_as_captions, config.start) == expected
    assert (config.dim, config.clip, config.aggregator.num_layers) == (SMALL.dim, SMALL.clip, 2)


def test_every_preset_is_tested_and_another_name_is_refused():
    assert len(METHODS) == 8
    with pytest.raises(UserError, match="expected one of sa, avg"):
        with_preset(SMALL, "hier")
    with pytest.raises(UserError, match="child_steps"):
        ScheduleConfig(child_steps=0)
    with pytest.raises(UserError, match=r"model\.dim"):
        HierVLConfig(dim=1)
    with pytest.raises(UserError, match="stays untrained"):
        HierVLConfig(schedule=ScheduleConfig(kind="child"))
    with pytest.raises(UserError, match="d_text"):
        build_hiervl(SMALL, 7, 0)


class Planted:
    """24 videos of 4 clips: a clip shows one of 6 atoms, its caption names it, the summary the first and the last."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(3)
        looks, words = torch.randn(6, 7, generator=g), torch.randn(6, 6, generator=g)
        first, last = torch.randn(6, 6, generator=g), torch.randn(6, 6, generator=g)
        ends = torch.tensor([(a, b) for a in range(6) for b in range(6) if a != b])
        self.ends = ends[torch.randperm(len(ends), generator=g)[:24]]
        middle = torch.randint(0, 6, (24, 2), generator=g)
        self.atoms_VC = torch.cat([self.ends[:, :1], middle, self.ends[:, 1:]], dim=1)
        clips = looks[self.atoms_VC][:, :, None] + 0.1 * torch.randn(24, 4, 2, 7, generator=g)
        summary = first[self.ends[:, 0]] + last[self.ends[:, 1]]
        self.batch = parents(24)._replace(clips_VCTI=clips, captions_VCX=words[self.atoms_VC], summary_VX=summary)

    def loss(self, model: HierVL, level: str) -> Tensor:
        valid = torch.ones(24, dtype=torch.bool)
        if level == "child":
            atom = self.atoms_VC[:, 0]
            out = model(
                ChildBatch(self.batch.clips_VCTI[:, 0], self.batch.frame_mask_VCT[:, 0], self.batch.captions_VCX[:, 0]),
                level,
            )
            tags = torch.nn.functional.one_hot(atom, 6)
            return child_loss(ChildRows(out.text_BE, out.video_BE, tags, tags, valid), EgoNCEConfig())["total"]
        out = model(self.batch, level)
        rows = ParentRows(
            *out, valid, valid, valid, torch.arange(24), torch.tensor([[0.0, 9.0]]).expand(24, 2), torch.arange(24)
        )
        return parent_loss(rows, parent_positives(rows), EgoNCEConfig(), ParentTermsConfig())["total"]


# Chance is 4 ln 24 = 12.7: two terms of two directions. The mean cannot tell "a, then b" from "b, then a".
@pytest.mark.parametrize(
    ("config", "parent_between"),
    [(SMALL, (0, 5)), (ATTENTION, (0, 5)), (with_preset(SMALL, "avg"), (9, 12))],
    ids=["mean-sa", "attention-sa", "mean-avg"],
)
def test_alternating_steps_lower_both_losses_and_reach_every_parameter(config, parent_between):
    planted, model = Planted(), build(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    before = {level: float(planted.loss(model.eval(), level).detach()) for level in ("child", "parent")}
    reached: set[str] = set()
    model.train()
    for step in range(160):
        optimizer.zero_grad()
        # Six steps of the default 5 : 1 reach everything; then 1 : 1, because the parent level learns more slowly.
        for level in (config.schedule if step < 6 else ScheduleConfig(child_steps=1)).levels(step):
            planted.loss(model, level).backward()
        if step < 6:
            reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert {name for name, _ in model.named_parameters()} - reached == set()
    after = {level: float(planted.loss(model.eval(), level).detach()) for level in ("child", "parent")}
    assert before["child"] > 4
    assert after["child"] < 1
    assert before["parent"] > 12.7
    assert parent_between[0] < after["parent"] < parent_between[1]
