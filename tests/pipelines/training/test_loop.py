import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from hvlm.data.batching import BatchingConfig
from hvlm.losses.monitors import AlarmConfig
from hvlm.losses.objective import ObjectiveConfig
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.baselines.config import SupervisedTrainConfig
from pipelines.training.checkpoints import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    read_model_state,
    read_trainer_state,
)
from pipelines.training.config import CheckpointConfig, OptimizerConfig
from pipelines.training.hierarchical_vlm import system
from pipelines.training.job import TrainJob
from pipelines.training.loop import TrainOutcome, train
from pipelines.training.prepare import prepare
from pipelines.training.system import RankContext
from pipelines.training.trainer import finished_outcome

MakeJob = Callable[..., TrainJob]


class Recorder:
    """A tracker in memory; it can end the process's work at a step, as a kill does."""

    def __init__(self, die_at: int | None = None) -> None:
        self.metrics: dict[int, dict[str, float]] = {}
        self.checkpoints: list[tuple[int, bool]] = []
        self.tags: dict[str, object] = {}
        self.die_at = die_at

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self.die_at is not None and step >= self.die_at:
            raise KeyboardInterrupt
        self.metrics.setdefault(step, {}).update(metrics)

    def log_checkpoint(self, step: int, uri: str, metrics: Mapping[str, float], *, best: bool) -> None:
        self.checkpoints.append((step, best))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.tags.update(tags)

    def flush(self) -> None:
        pass


def weights(outcome: TrainOutcome) -> dict[str, torch.Tensor]:
    assert outcome.checkpoint_uri is not None
    return read_model_state(outcome.checkpoint_uri)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The uninterrupted training that several tests compare with."""
    return {}


@pytest.fixture
def uninterrupted(make_job: MakeJob, kept: dict[str, Any]) -> tuple[TrainOutcome, Recorder, dict[str, torch.Tensor]]:
    if not kept:
        recorder = Recorder()
        outcome = train(make_job("uninterrupted"), RankContext(), recorder)
        kept["result"] = outcome, recorder, weights(outcome)
    return kept["result"]


def test_a_training_learns_and_says_what_it_did(
    uninterrupted: tuple[TrainOutcome, Recorder, dict[str, torch.Tensor]],
) -> None:
    outcome, recorder, _ = uninterrupted
    steps = sorted(step for step, values in recorder.metrics.items() if "train/loss/total" in values)
    assert steps == list(range(2, outcome.step + 1, 2))
    first, last = recorder.metrics[2], recorder.metrics[outcome.step]
    assert last["train/loss/total"] < 0.7 * first["train/loss/total"]
    assert last["train/lr"] == pytest.approx(1e-6)
    for name in ("grad_norm", "samples_per_s", "frames_per_s", "data_wait_share", "padding_share", "epoch"):
        assert math.isfinite(last[f"train/{name}"])
    assert {"dev/hidden/contrast_gap", "dev/hidden/effective_rank", "dev/loss/total"} <= last.keys()
    assert [step for step, _ in recorder.checkpoints] == [*range(5, outcome.step, 5), outcome.step]
    assert outcome.stopped is None and not any(name.startswith("alarm") for name in recorder.tags)
    assert recorder.tags["checkpoint.latest"] == outcome.checkpoint_uri
    assert recorder.tags["checkpoint.best"] == outcome.best_uri


@pytest.mark.parametrize("die_at", [8, 17])
def test_a_killed_training_continues_as_if_nothing_had_happened(
    make_job: MakeJob, uninterrupted: tuple[TrainOutcome, Recorder, dict[str, torch.Tensor]], die_at: int
) -> None:
    job = make_job()
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at))
    saved = latest_checkpoint(job.config.output_uri)
    assert saved is not None and saved.step == die_at // 5 * 5
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    expected, whole, expected_weights = uninterrupted
    assert outcome.step == expected.step
    found = weights(outcome)
    assert all(torch.equal(found[name], value) for name, value in expected_weights.items())
    for step in (expected.step - 2, expected.step):
        for name in ("train/loss/total", "train/grad_norm", "train/lr"):
            assert recorder.metrics[step][name] == whole.metrics[step][name]
    assert min(recorder.metrics) > saved.step


def test_checkpoints_hold_everything_and_old_ones_go(make_job: MakeJob) -> None:
    job = make_job(checkpoint=CheckpointConfig(every_steps=3, keep_last=1))
    outcome = train(job, RankContext(), Recorder())
    left = list_checkpoints(job.config.output_uri)
    assert left[-1].step == outcome.step and len(left) <= 2 and outcome.best_uri in {each.uri for each in left}
    state = read_trainer_state(left[-1].uri)
    assert state["step"] == outcome.step
    assert len(state["optimizer"]["state"]) == sum(len(g["params"]) for g in state["optimizer"]["param_groups"])


def test_best_is_the_highest_recall(make_job: MakeJob) -> None:
    job = make_job(checkpoint=CheckpointConfig(every_steps=4, keep_last=9))
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    recalls = {step: recorder.metrics[step]["dev/video/text_to_video/recall_at_1"] for step, _ in recorder.checkpoints}
    best_step = max(recalls, key=lambda step: (recalls[step], step))
    assert outcome.best_uri is not None and outcome.best_uri.endswith(f"{best_step:09d}")
    assert [step for step, best in recorder.checkpoints if best][-1] == best_step


def test_a_finished_training_takes_no_step(make_job: MakeJob) -> None:
    job = make_job(max_steps=3)
    first = train(job, RankContext(), Recorder())
    recorder = Recorder()
    again = train(job, RankContext(), recorder)
    assert again.step == first.step == 3 and not recorder.metrics and again.metrics == pytest.approx(first.metrics)


def without_text(**changes: Any) -> dict[str, Any]:
    encoder = TemporalEncoderConfig(d_model=16, num_layers=2, num_heads=2, d_ff=32, dropout=0.0)
    projector = ProjectorConfig(**changes)
    model = HierarchicalVLMConfig(encoder=encoder, projector=projector, alignment=AlignmentConfig(enabled=False))
    return {"model": model, "objective": ObjectiveConfig()}


def test_without_text_best_is_the_contrast_gap(make_job: MakeJob) -> None:
    job = make_job(max_steps=4, **without_text(dim=16))
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    assert job.text_uri is None and not any("recall" in name for name in outcome.metrics)
    (checkpoint,) = list_checkpoints(job.config.output_uri)
    assert checkpoint.score == outcome.metrics["dev/hidden/contrast_gap"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(checkpoint=CheckpointConfig(every_steps=2))
    original = system.run_step
    calls = iter(range(1000))

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if next(calls) == 3:
            result.losses["total"] = result.losses["total"] * float("nan")
        return result

    monkeypatch.setattr(system, "run_step", poisoned)
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    assert outcome.stopped is not None and "at step 4 the loss is nan" in outcome.stopped and outcome.step == 3
    assert "alarm.non_finite_loss" in recorder.tags
    assert outcome.checkpoint_uri is not None
    assert all(value.isfinite().all() for value in weights(outcome).values())


def test_a_parameter_that_no_loss_reaches_ends_the_training(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "freeze", lambda model, names: 0)
    job = make_job(objective=ObjectiveConfig())  # the text heads are there, the loss on text is not
    with pytest.raises(RuntimeError, match=r"no loss reaches these trainable parameters: .*alignment\.text"):
        train(job, RankContext(), None)


@pytest.mark.parametrize("stop", [True, False])
def test_zero_gradients_raise_the_alarm(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, stop: bool) -> None:
    job = make_job(max_steps=8, alarms=AlarmConfig(zero_gradient_steps=4, stop=stop))
    original = system.run_step

    def constant(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        result.losses["total"] = result.losses["total"] * 0.0  # what a loss on the inputs gives: no gradient arrives
        return result

    monkeypatch.setattr(system, "run_step", constant)
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    assert "alarm.zero_gradient" in recorder.tags and recorder.metrics[4]["alarm/zero_gradient"] == 1.0
    assert (outcome.stopped is not None) == stop and outcome.step == (3 if stop else 8)


def test_collapse_raises_the_alarm(make_job: MakeJob) -> None:
    literal = without_text(kind="identity") | {"objective": ObjectiveConfig(preset="upstream_literal")}
    alarms = AlarmConfig(min_unit_std=0.99, evaluations=2)
    recorder = Recorder()
    train(
        make_job(max_steps=6, checkpoint=CheckpointConfig(every_steps=2), alarms=alarms, **literal),
        RankContext(),
        recorder,
    )
    assert "alarm.dev.hidden.unit_std" in recorder.tags


def test_a_kill_after_a_checkpoint_loses_no_metrics_and_the_tags_catch_up(make_job: MakeJob) -> None:
    class DiesAtCheckpoint(Recorder):
        def log_checkpoint(self, step: int, uri: str, metrics: Mapping[str, float], *, best: bool) -> None:
            raise KeyboardInterrupt

    job = make_job(max_steps=3, checkpoint=CheckpointConfig(every_steps=2))
    first = DiesAtCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), first)
    (saved,) = list_checkpoints(job.config.output_uri)
    assert saved.step == 2 and "dev/loss/total" in first.metrics[2]
    again = DiesAtCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), again)
    assert again.tags["checkpoint.latest"] == again.tags["checkpoint.best"] == saved.uri


@pytest.mark.parametrize("max_steps", [4, 8])
def test_what_an_alarm_stopped_stays_stopped(make_job: MakeJob, max_steps: int) -> None:
    alarms = AlarmConfig(min_unit_std=1.0, evaluations=2, stop=True)
    changes = {"max_steps": max_steps, "checkpoint": CheckpointConfig(every_steps=2)}
    outcome = train(make_job(alarms=alarms, **changes), RankContext(), Recorder())
    assert outcome.stopped is not None and "unit_std at step 4" in outcome.stopped and outcome.step == 4
    saved = latest_checkpoint(make_job(**changes).config.output_uri)
    assert saved is not None and saved.step == 4 and saved.stopped == outcome.stopped
    assert read_trainer_state(saved.uri)["alarms"]["dev/hidden/unit_std"] == 2
    job = make_job(alarms=alarms, **changes)
    recorder = Recorder()
    again = train(job, RankContext(), recorder)
    assert again.stopped == outcome.stopped and again.step == 4 and not recorder.metrics
    finished = finished_outcome(job)
    assert finished is not None and finished.stopped == outcome.stopped
    job = make_job(alarms=replace(alarms, stop=False), **changes)
    assert train(job, RankContext(), Recorder()).step == max_steps
    finished = finished_outcome(job)
    assert finished is not None and finished.stopped is None and finished.step == max_steps


def test_a_damaged_checkpoint_is_left_out(make_job: MakeJob) -> None:
    changes = {"max_steps": 6, "checkpoint": CheckpointConfig(every_steps=2, keep_last=3)}
    outcome = train(make_job(**changes), RankContext(), Recorder())
    expected = weights(outcome)
    file = Path(str(outcome.checkpoint_uri)) / "trainer_state.pt"
    file.write_bytes(bytes(file.stat().st_size))
    recorder = Recorder()
    again = train(make_job(**changes), RankContext(), recorder)
    assert again.step == 6 and 6 in recorder.metrics and 4 not in recorder.metrics
    assert all(torch.equal(value, expected[name]) for name, value in weights(again).items())


def run_rank(rank: int, world_size: int, jobs: list[TrainJob], rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    alone, not_synchronised = DistributedDataParallel.no_sync, [0]

    def counted(model: DistributedDataParallel) -> Any:
        not_synchronised[0] += 1
        return alone(model)

    DistributedDataParallel.no_sync = counted  # type: ignore[method-assign]
    try:
        said = []
        for job in jobs:
            outcome = train(job, RankContext(rank, world_size), Recorder() if rank == 0 else None)
            said.append({"metrics": outcome.metrics, "not_synchronised": not_synchronised[0]})
        torch.save(said, f"{results}.{rank}")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one(make_job: MakeJob, tmp_path: Path) -> None:
    """Spec test 7: the same losses, weights and dev metrics; 7 dev videos do not divide by 2.

    In a second training each rank takes its half of a batch in two parts, on a loss that is a mean over videos.
    """
    changes = {"max_steps": 6, "checkpoint": CheckpointConfig(every_steps=6)} | without_text(dim=16)
    model = replace(changes["model"], alignment=AlignmentConfig(dim=16))  # no dropout: it differs by rank
    changes |= {"model": model, "objective": ObjectiveConfig(text=1.0)}
    alone = train(make_job("alone", **changes), RankContext(), Recorder())
    job, (whole, parts) = make_job("two", **changes), accumulating(make_job, 2)
    arguments = (2, [job, parts], str(tmp_path / "rendezvous"), str(tmp_path / "result"))
    mp.start_processes(run_rank, arguments, nprocs=2, start_method="spawn")
    results, accumulated = zip(*(torch.load(f"{tmp_path / 'result'}.{rank}") for rank in (0, 1)), strict=True)
    dev = {name: value for name, value in alone.metrics.items() if name.startswith("dev/")}
    assert dev
    for result in results:
        assert result["not_synchronised"] == 0
        assert {name: result["metrics"][name] for name in dev} == pytest.approx(dev, rel=1e-3, abs=1e-4)
        assert result["metrics"]["train/loss/total"] == pytest.approx(alone.metrics["train/loss/total"], rel=1e-4)
    assert_same_weights(alone, latest_checkpoint(job.config.output_uri))
    once = train(whole, RankContext(), Recorder())
    for result in accumulated:
        assert result["not_synchronised"] == once.step == 6  # all but the last of two parts of each step
        assert result["metrics"]["train/loss/total"] == pytest.approx(once.metrics["train/loss/total"], rel=1e-4)
    assert_same_weights(once, latest_checkpoint(parts.config.output_uri))
    assert os.path.exists(f"{tmp_path / 'result'}.1")


def assert_same_weights(expected: TrainOutcome, saved: Checkpoint | None) -> None:
    assert saved is not None
    found = read_model_state(saved.uri)
    assert not any(name.startswith("module.") for name in found)
    for name, value in weights(expected).items():
        keep = torch.ones_like(value, dtype=torch.bool)
        if name.endswith("query_key_value.bias"):
            # A bias of all keys does not change a softmax: its gradient is 0 but for rounding, which Adam scales up.
            keep[len(value) // 3 : 2 * len(value) // 3] = False
        torch.testing.assert_close(found[name][keep], value[keep], rtol=1e-3, atol=1e-4)


def accumulating(make_job: MakeJob, count: int) -> tuple[TrainJob, TrainJob]:
    """A training of six steps on batches of eight videos, and the same one in `count` parts; without dropout, whose
    draws depend on the shape of a part."""
    model = without_text(dim=16)["model"]
    values = {"max_steps": 6, "model": model, "batching": BatchingConfig(global_batch_size=8, max_rows=24)}
    jobs = []
    for name, steps in (("whole", 1), ("parts", count)):
        like = make_job(f"like-{name}", max_steps=1).config
        config = SupervisedTrainConfig(
            store_uri=like.store_uri,
            output_uri=f"{like.output_uri}-labels",
            log_every_steps=2,
            tracking=like.tracking,
            optimizer=OptimizerConfig(lr=3e-3, accumulate_steps=steps),
            dropout=0.0,
            **values,
        )
        jobs.append(prepare(config)[0])
    return jobs[0], jobs[1]


def test_parts_of_a_batch_are_as_good_as_the_batch(make_job: MakeJob) -> None:
    """For a loss that is a mean over videos; a killed one continues as if nothing had happened."""
    whole, parts = accumulating(make_job, 4)
    expected, recorder = train(whole, RankContext(), Recorder()), Recorder()
    found = train(parts, RankContext(), recorder)
    assert found.step == expected.step == 6
    assert_same_weights(expected, latest_checkpoint(parts.config.output_uri))
    last = recorder.metrics[6]
    for name in ("train/loss/total", "train/labels/hit_at_1", "train/grad_norm", "train/epoch"):
        assert last[name] == pytest.approx(expected.metrics[name], rel=1e-3), name
    assert last["train/padding_share"] == pytest.approx(expected.metrics["train/padding_share"])
    config = replace(
        parts.config, output_uri=f"{parts.config.output_uri}-again", checkpoint=CheckpointConfig(every_steps=2)
    )
    job = prepare(config)[0]
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at=4))
    again = weights(train(job, RankContext(), Recorder()))
    assert all(torch.equal(again[name], value) for name, value in weights(found).items())


def test_contrast_is_within_a_part(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the four videos are a part, so a video has one negative; the log says the mean of the parts."""
    job = make_job(max_steps=1, optimizer=OptimizerConfig(lr=3e-3, accumulate_steps=2), log_every_steps=1)
    original, seen = system.run_step, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if torch.is_grad_enabled():
            seen.append((len(result.batch.mask_NT), float(result.losses["total"].detach())))
        return result

    monkeypatch.setattr(system, "run_step", watched)
    outcome = train(job, RankContext(), Recorder())
    assert [size for size, _ in seen] == [2, 2]
    assert outcome.metrics["train/loss/total"] == pytest.approx(sum(loss for _, loss in seen) / 2)
