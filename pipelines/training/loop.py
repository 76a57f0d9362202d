"""The training loop of one rank. It knows no Ray: with a process group it is one of several ranks, without one it is
alone.

Everything random is a function of (seed, step, rank) or (seed, epoch): the generators are seeded anew before every
step. So a run that continues from a checkpoint takes the same steps as one that was never interrupted, and the step
is all the position there is.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from hvlm.losses.monitors import Alarm
from pipelines.training.checkpoints import (
    CheckpointContent,
    best_checkpoint,
    list_checkpoints,
    retain,
    save_checkpoint,
)
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.state import GradientCheck, load_state, set_learning_rate
from pipelines.training.step import mix_seed
from pipelines.training.stream import Prefetcher
from pipelines.training.system import RankContext
from pipelines.training.throughput import Throughput

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the loop writes to; `infra.tracking.RunTracker` is one."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def log_checkpoint(self, step: int, uri: str, metrics: Mapping[str, float], *, best: bool) -> None: ...

    def set_tags(self, tags: Mapping[str, object]) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """How a training ended. `stopped`: why it stopped before its last step (an alarm), else None."""

    step: int
    metrics: dict[str, float]
    checkpoint_uri: str | None
    best_uri: str | None
    stopped: str | None = None


class _StopError(Exception):
    """An alarm that ends the run. All ranks see the same numbers, so all of them stop at the same step."""


def train(job: TrainJob, context: RankContext, tracker: Tracker | None) -> TrainOutcome:
    """Train from the last complete checkpoint of `job.config.output_uri`, or from the start, to the last step.

    Args:
        job: what to train on what.
        context: this rank. A process group must exist if there are several.
        tracker: for metrics, on rank 0; None elsewhere.

    Raises:
        UserError: the store or a checkpoint does not fit the job.
    """
    return _Run(job, context, tracker).run()


def _synchronised(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Let the ranks average their gradients in the last part of a step alone: there they have those of all parts."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _mean(figures: Sequence[Tensor]) -> Tensor:
    return torch.stack([figure.float() for figure in figures]).mean()


class _Run:
    """One start of the loop on one rank."""

    def __init__(self, job: TrainJob, context: RankContext, tracker: Tracker | None) -> None:
        self.job, self.config, self.context, self.tracker = job, job.config, context, tracker
        self.system = open_system(job, context)
        self.state = load_state(job, self.system, context.device)
        self.gradients = GradientCheck(self.state.model, self.system.gradient_cycle)
        self.throughput = Throughput()
        self.metrics: dict[str, float] = {}
        self._figures: list[dict[str, Tensor]] = []

    def run(self) -> TrainOutcome:
        self._tag_checkpoints()
        if self.state.stopped is not None and self.config.alarms.stop:
            return self._outcome(self.state.stopped)
        model: nn.Module = self.state.model
        if self.context.world_size > 1:
            model = DistributedDataParallel(model, find_unused_parameters=self.system.partial_passes)
        model.train()
        every = self.config.checkpoint.every_steps
        stopped = None
        stream = self.system.stream(self.state.step, self.job.total_steps - self.state.step)
        loader = Prefetcher(stream, self.config.stream, pin=self.context.device.type == "cuda")
        batches = iter(loader)
        try:
            while self.state.step < self.job.total_steps:
                with self.throughput.waiting():
                    batch = next(batches)
                grad_norm, lr = self._step(model, batch.to(self.context.device))
                last = self.state.step == self.job.total_steps
                if last or self.state.step % self.config.log_every_steps == 0:
                    self._log_step(grad_norm, lr)
                if last or self.state.step % every == 0:
                    with self.throughput.paused():
                        self._validate_and_save()
        except _StopError as stop:
            stopped = str(stop)
            logger.error("training stopped: %s", stopped)
        finally:
            loader.close()
            if self.tracker is not None:
                self.tracker.flush()
        return self._outcome(stopped)

    def _step(self, model: nn.Module, batch: Any) -> tuple[float, float]:
        """Take one optimizer step; return the norm of the gradient before clipping, and the learning rate."""
        state, config = self.state, self.config
        lr = set_learning_rate(state.optimizer, config.optimizer, state.step, self.job)
        torch.manual_seed(mix_seed(config.seed, state.step, self.context.rank))  # dropout
        state.optimizer.zero_grad(set_to_none=True)
        totals: list[Tensor] = []
        figures: dict[str, list[Tensor]] = {}
        masks: list[Tensor] = []
        parts = batch.split(config.optimizer.accumulate_steps)
        for part in parts:
            with _synchronised(model, part is parts[-1]):
                for each in self.system.passes(model, part, state.step):
                    total = each.total / len(parts)
                    total.backward()  # type: ignore[no-untyped-call]
                    totals.append(total.detach().float())
                    masks.append(each.mask_NT)
                    for name, value in each.figures.items():
                        figures.setdefault(name, []).append(value)
        self.gradients.observe()
        norm = clip_grad_norm_(state.model.parameters(), config.optimizer.clip_norm)
        # One transfer: a GPU is waited for once per step, so that weights are never updated from a NaN.
        loss, grad_norm = torch.stack([torch.stack(totals).sum(), norm.float()]).tolist()
        self._stop_if(self._report(state.alarms.observe_step(state.step + 1, loss, grad_norm)))
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise _StopError(f"at step {state.step + 1} the loss is {loss} and the norm of its gradient {grad_norm}")
        state.optimizer.step()
        state.step += 1
        self.throughput.add(masks, batch.num_bad_rows)
        self._figures.append({name: each[0] if len(each) == 1 else _mean(each) for name, each in figures.items()})
        return grad_norm, lr

    def _log_step(self, grad_norm: float, lr: float) -> None:
        """Log means over the steps since the last time; needs no other rank."""
        names = dict.fromkeys(name for figures in self._figures for name in figures)
        values = {name: [float(each[name]) for each in self._figures if name in each] for name in names}
        means = {f"train/{name}": sum(each) / len(each) for name, each in values.items()}
        self._figures = self._figures[:0]
        figures = self.throughput.take() | {"grad_norm": grad_norm, "lr": lr} | self.system.progress(self.state.step)
        logged = means | {f"train/{name}": value for name, value in figures.items()}
        self.metrics |= logged
        if self.tracker is not None:
            self.tracker.log_metrics(logged, self.state.step)
            logger.info(
                "step %d/%d, %s, grad norm %.3f, lr %.2e, %.0f samples/s, data wait %.1f %%",
                self.state.step,
                self.job.total_steps,
                ", ".join(f"{name} {value:.4f}" for name, value in means.items() if name.endswith("/total")),
                grad_norm,
                lr,
                figures["samples_per_s"],
                100 * figures["data_wait_share"],
            )

    def _validate_and_save(self) -> None:
        state, config = self.state, self.config
        dev = self.system.validate(state.model)
        self.metrics |= dev
        score = self.system.score(dev)
        # Before saving, so that the checkpoint's counters have seen this evaluation; stopping waits until it is saved.
        prefix = self.system.monitor_prefix
        stopped = self._report(state.alarms.observe_evaluation(state.step, dev, prefix=prefix) if dev else [])
        if self.tracker is not None:
            # Metrics before the checkpoint: a run killed in between takes these steps again, and sends none twice.
            self.tracker.log_metrics(dev, state.step)
            self.tracker.flush()
            content = CheckpointContent(
                model=state.model.state_dict(),
                trainer=state.trainer_state(),
                info=self.job.checkpoint_info(state.step),
                metrics=self.metrics,
                score=score if score is not None and math.isfinite(score) else None,
                stopped=stopped,
            )
            saved = save_checkpoint(config.output_uri, content)
            best = best_checkpoint(list_checkpoints(config.output_uri))
            self.tracker.log_checkpoint(state.step, saved.uri, saved.metrics, best=best == saved)
            self._tag_checkpoints()
            retain(config.output_uri, config.checkpoint.keep_last)
        self._stop_if(stopped)

    def _tag_checkpoints(self) -> None:
        """Point the run's tags at what is there, also after a kill in the middle of saving."""
        checkpoints = list_checkpoints(self.config.output_uri) if self.tracker is not None else []
        if self.tracker is None or not checkpoints:
            return
        best = best_checkpoint(checkpoints) or checkpoints[-1]
        tags: dict[str, object] = {"checkpoint.best": best.uri, "checkpoint.best_step": best.step}
        self.tracker.set_tags(tags | {"checkpoint.latest": checkpoints[-1].uri})

    def _report(self, alarms: list[Alarm]) -> str | None:
        """Log alarms; return why the run must stop, None where it goes on."""
        for alarm in alarms:
            logger.warning("%s", alarm.message)
            if self.tracker is not None:
                self.tracker.set_tags({f"alarm.{alarm.name.replace('/', '.')}": alarm.message})
                self.tracker.log_metrics({f"alarm/{alarm.name}": 1.0}, alarm.step)
        return "; ".join(alarm.message for alarm in alarms) if alarms and self.config.alarms.stop else None

    def _stop_if(self, reason: str | None) -> None:
        if reason is not None:
            raise _StopError(reason)

    def _outcome(self, stopped: str | None) -> TrainOutcome:
        checkpoints = list_checkpoints(self.config.output_uri)
        best = best_checkpoint(checkpoints)
        latest = checkpoints[-1] if checkpoints else None
        metrics = self.metrics or (dict(latest.metrics) if latest else {})
        return TrainOutcome(
            step=self.state.step,
            metrics=metrics,
            checkpoint_uri=latest.uri if latest else None,
            best_uri=best.uri if best else (latest.uri if latest else None),
            stopped=stopped,
        )
