from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from hvlm.models.heads import AlignmentConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.config import OptimizerConfig, StreamConfig
from pipelines.training.job import TrainJob
from pipelines.training.state import (
    check_all_have_gradients,
    check_all_optimized,
    load_state,
    make_optimizer,
    set_learning_rate,
)
from pipelines.training.stream import FeatureReader, SampleTable

CPU = torch.device("cpu")


def reader_of(job: TrainJob) -> FeatureReader:
    return FeatureReader(SampleTable.of(job.open_manifest(), "train"), StreamConfig())


def test_every_trainable_parameter_is_in_the_optimizer(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    state = load_state(job, reader_of(job), CPU)
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
    model[0](torch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match=r"1\.weight, 1\.bias, 2\.weight, 2\.bias"):
        check_all_have_gradients(model)


def test_the_learning_rate_warms_up_and_ends_at_its_minimum(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(optimizer=OptimizerConfig(lr=1e-3, min_lr=1e-6, warmup_epochs=1))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    rates = [set_learning_rate(optimizer, job.config.optimizer, step, job) for step in range(job.total_steps)]
    warmup = job.steps_per_epoch
    assert rates[0] == pytest.approx(1e-3 / warmup) and rates[warmup] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-6) and optimizer.param_groups[0]["lr"] == rates[-1]
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_standard_input_norm_gets_the_train_splits_statistics(make_job: Callable[..., TrainJob]) -> None:
    encoder = TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=16, input_norm="standard")
    model = HierarchicalVLMConfig(encoder=encoder, alignment=AlignmentConfig(dim=16))
    job = make_job(model=model)
    reader = reader_of(job)
    norm = load_state(job, reader, CPU).model.encoder.input_norm
    rows = np.concatenate([reader.video(i).features_TI for i in range(len(reader.table))])
    np.testing.assert_allclose(norm.mean_D, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(norm.std_D, rows.std(0), rtol=1e-4)
