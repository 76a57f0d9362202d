from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from hvlm.errors import UserError
from hvlm.models.baselines import MoCoConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.baselines.config import MoCoTrainConfig
from pipelines.training.baselines.moco import MoCoSystem
from pipelines.training.checkpoints import latest_checkpoint, load_model, read_model_state
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder, run_rank, weights

MakeJob = Callable[..., TrainJob]


def system_of(job: TrainJob, rank: int = 0, world_size: int = 1) -> MoCoSystem:
    system = open_system(job, RankContext(rank, world_size))
    assert isinstance(system, MoCoSystem)
    return system


def test_the_keys_of_a_step_come_into_the_queue_after_it(make_job: MakeJob) -> None:
    system = system_of(make_job("moco"))
    model = system.build_model()
    start = model.queue_QE.clone()
    for step, batch in enumerate(system.stream(0, 2)):
        for each in system.passes(model, batch, step):
            assert torch.equal(model.queue_QE[4 * step :], start[4 * step :])
            each.total.backward()  # type: ignore[no-untyped-call]
    assert int(model.next_row) == 8 and torch.equal(model.queue_QE[8:], start[8:])
    assert not any((model.queue_QE[row] == start[row]).all() for row in range(8))
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("backbone.")}


def test_the_views_are_those_of_the_global_batch_and_differ_by_step(make_job: MakeJob) -> None:
    job = make_job("moco")
    (whole,) = system_of(job).stream(0, 1)
    alone = system_of(job)._views(whole, 5)
    parts = []
    for rank in range(2):
        system = system_of(job, rank, 2)
        (batch,) = system.stream(0, 1)
        parts.append(system._views(batch, 5))
    for view in range(2):
        together = torch.cat([part[view].features_BTI for part in parts])
        assert torch.equal(together, alone[view].features_BTI)
    assert not torch.equal(alone[0].mask_BT, alone[1].mask_BT)
    assert not torch.equal(system_of(job)._views(whole, 6)[0].features_BTI, alone[0].features_BTI)


def test_a_training_learns_and_a_killed_one_continues_with_its_queue(make_job: MakeJob) -> None:
    recorder = Recorder()
    outcome = train(make_job("moco-whole"), RankContext(), recorder)
    first, last = recorder.metrics[3], recorder.metrics[outcome.step]
    # A queue of 12 and the own key: chance is 1/13.
    assert last["train/queue/hit_at_1"] > max(0.3, first["train/queue/hit_at_1"])
    assert "dev/hidden/contrast_gap" in outcome.metrics
    job = make_job("moco-killed")
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at=15))
    again = weights(train(job, RankContext(), Recorder()))
    expected = weights(outcome)
    assert {"queue_QE", "next_row"} <= expected.keys() and any(name.startswith("key.") for name in expected)
    assert all(torch.equal(again[name], value) for name, value in expected.items())
    model, _ = load_model(str(outcome.checkpoint_uri))
    assert all(torch.equal(value, expected[f"backbone.{name}"]) for name, value in model.state_dict().items())


def test_a_queue_longer_than_the_data_is_refused(make_job: MakeJob) -> None:
    with pytest.raises(UserError, match=r"moco\.queue_size: got 4096; expected at most the 32 training samples"):
        make_job("moco", moco=MoCoConfig())


@pytest.mark.slow
def test_two_ranks_train_as_one(make_job: MakeJob, tmp_path: Path) -> None:
    """Weights, key network and queue; dropout is off, as it differs by rank."""
    config = make_job("moco").config
    assert isinstance(config, MoCoTrainConfig) and isinstance(config.model.encoder, TemporalEncoderConfig)
    model = replace(config.model, encoder=replace(config.model.encoder, dropout=0.0))
    alone = weights(train(make_job("moco-alone", max_steps=4, model=model), RankContext(), Recorder()))
    job = make_job("moco-two", max_steps=4, model=model)
    arguments = (2, [job], str(tmp_path / "rendezvous"), str(tmp_path / "result"))
    mp.start_processes(run_rank, arguments, nprocs=2, start_method="spawn")
    saved = latest_checkpoint(job.config.output_uri)
    assert saved is not None
    found = read_model_state(saved.uri)
    assert int(found["next_row"]) == 4
    for name, value in alone.items():
        if not name.endswith("query_key_value.bias"):  # its gradient is rounding, which Adam scales up
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
