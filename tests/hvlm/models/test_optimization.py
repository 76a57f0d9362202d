import itertools
import math

import pytest
from torch import nn

from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.optimization import freeze, parameter_groups, warmup_cosine


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = build_model(HierarchicalVLMConfig(encoder="tiny", cross_scale=True, num_classes=3), 12, 8)
    decayed, rest = parameter_groups(model, 0.1)
    members = [id(p) for p in decayed["params"] + rest["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters()}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(p.ndim == 2 and names[id(p)].endswith("weight") for p in decayed["params"])
    undecayed = {names[id(p)] for p in rest["params"]}
    assert {"pyramid.scores_LD", "alignment.log_scale", "encoder.norm.weight"} <= undecayed


def test_shared_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    decayed, rest = parameter_groups(model, 0.1)
    assert [len(decayed["params"]), len(rest["params"])] == [1, 1]


def test_curve_by_hand() -> None:
    factors = [warmup_cosine(step, 11, 2, 0.01) for step in range(11)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[-1] == 0.01
    assert factors[6] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert all(a >= b for a, b in itertools.pairwise(factors[1:]))
    assert warmup_cosine(500, 11, 2, 0.01) == 0.01


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 5), (2, 2), (10, 30), (7100, 284)])
def test_last_step_has_the_final_rate(total: int, warmup: int) -> None:
    assert 1e-4 * warmup_cosine(total - 1, total, warmup, 1e-6 / 1e-4) == pytest.approx(1e-6, rel=1e-12)


def test_freeze_counts_and_skips_missing_parts() -> None:
    model = build_model(HierarchicalVLMConfig(encoder="tiny"), 12, 8)
    assert model.alignment is not None
    count = freeze(model, ["alignment", "predictor", "classifier"])
    assert count == sum(p.numel() for p in model.alignment.parameters())
    assert not any(p.requires_grad for p in model.alignment.parameters())
    assert all(p.requires_grad for p in model.encoder.parameters())
