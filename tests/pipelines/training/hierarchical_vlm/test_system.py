from collections.abc import Callable

import numpy as np
import pytest
import torch

from hvlm.losses.objective import ObjectiveConfig
from hvlm.models.heads import AlignmentConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.hierarchical_vlm.system import HierarchicalVLMSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.state import load_state
from pipelines.training.system import RankContext

CPU = torch.device("cpu")


def system_of(job: TrainJob) -> HierarchicalVLMSystem:
    system = open_system(job, RankContext())
    assert isinstance(system, HierarchicalVLMSystem)
    return system


def test_standard_input_norm_gets_the_train_splits_statistics(make_job: Callable[..., TrainJob]) -> None:
    encoder = TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=16, input_norm="standard")
    model = HierarchicalVLMConfig(encoder=encoder, alignment=AlignmentConfig(dim=16))
    job = make_job(model=model)
    system = system_of(job)
    reader = system.reader
    norm = load_state(job, system, CPU).model.encoder.input_norm
    rows = np.concatenate([reader.video(i).features_TI for i in range(len(reader.table))])
    np.testing.assert_allclose(norm.mean_D, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(norm.std_D, rows.std(0), rtol=1e-4)


def test_what_no_loss_reaches_is_frozen(make_job: Callable[..., TrainJob]) -> None:
    system = system_of(make_job(objective=ObjectiveConfig()))
    alignment = system.build_model().alignment
    assert alignment is not None and not any(p.requires_grad for p in alignment.parameters())


def test_one_pass_has_the_objectives_losses_and_the_score_is_recall(make_job: Callable[..., TrainJob]) -> None:
    system = system_of(make_job())
    batch = next(iter(system.stream(0, 1)))
    (only,) = system.passes(system.build_model(), batch, 0)
    assert {"loss/total", "loss/text"} <= only.figures.keys()
    assert float(only.total) == float(only.figures["loss/total"]) and not only.figures["loss/total"].requires_grad
    assert system.score({"dev/video/text_to_video/recall_at_1": 0.25}) == pytest.approx(0.25)
    assert system.score({}) is None
