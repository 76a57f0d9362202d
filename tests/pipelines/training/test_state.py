from collections.abc import Callable

import pytest
import torch
from torch import nn

from pipelines.training.config import OptimizerConfig
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.state import (
    GradientCheck,
    check_all_optimized,
    load_state,
    make_optimizer,
    set_learning_rate,
)
from pipelines.training.system import RankContext

CPU = torch.device("cpu")


def test_every_trainable_parameter_is_in_the_optimizer(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    state = load_state(job, open_system(job, RankContext()), CPU)
    held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in state.model.parameters() if p.requires_grad} and state.step == 0
    decays = {group["weight_decay"] for group in state.optimizer.param_groups}
    assert decays == {0.0, job.config.optimizer.weight_decay}


def test_a_forgotten_parameter_is_found() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer(model, OptimizerConfig())
    model.append(nn.Linear(2, 1))
    with pytest.raises(RuntimeError, match=r"2\.weight, 2\.bias"):
        check_all_optimized(model, optimizer)


def test_a_parameter_without_gradient_is_found_at_the_end_of_its_cycle() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))

    def step(part: int) -> None:
        model.zero_grad(set_to_none=True)
        model[part](torch.ones(1, 2)).sum().backward()
        check.observe()

    check = GradientCheck(model, 1)
    with pytest.raises(RuntimeError, match=r"1\.weight, 1\.bias, 2\.weight, 2\.bias"):
        step(0)
    check = GradientCheck(model, 3)
    for part in (0, 1, 2, 2, 1, 0, 1, 1):
        step(part)
    with pytest.raises(RuntimeError, match=r": 0\.weight, 0\.bias$"):  # the third cycle: 1, 1, 2
        step(2)


def test_the_learning_rate_warms_up_and_ends_at_its_minimum(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(optimizer=OptimizerConfig(lr=1e-3, min_lr=1e-6, warmup_epochs=1))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    rates = [set_learning_rate(optimizer, job.config.optimizer, step, job) for step in range(job.total_steps)]
    warmup = job.steps_per_epoch
    assert rates[0] == pytest.approx(1e-3 / warmup) and rates[warmup] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-6) and optimizer.param_groups[0]["lr"] == rates[-1]
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
