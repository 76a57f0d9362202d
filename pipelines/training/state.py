"""What changes while training: weights, optimizer, step, alarm counters; made new or taken from the last checkpoint."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hvlm.losses.monitors import Alarms
from hvlm.models.optimization import parameter_groups, warmup_cosine
from pipelines.training.checkpoints import latest_checkpoint, load_weights, read_model_state, read_trainer_state
from pipelines.training.config import OptimizerConfig
from pipelines.training.job import TrainJob
from pipelines.training.system import System

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """`step` counts the optimizer steps that are done; `stopped` is the alarm that ended the training there."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    alarms: Alarms
    step: int = 0
    stopped: str | None = None

    def trainer_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights; plain values and tensors only."""
        return {"optimizer": self.optimizer.state_dict(), "step": self.step, "alarms": self.alarms.state_dict()}


def load_state(job: TrainJob, system: System, device: torch.device) -> TrainState:
    """Return the state of the last complete checkpoint of the job's output, or a new one.

    Args:
        job: what to train.
        system: makes the model.
        device: where the model goes.

    Raises:
        UserError: the checkpoint is damaged or of another architecture.
    """
    torch.manual_seed(job.config.seed)
    model = system.build_model()
    checkpoint = latest_checkpoint(job.config.output_uri)
    if checkpoint is not None:
        load_weights(model, read_model_state(checkpoint.uri), checkpoint.uri)
    else:
        system.initialise(model)
    model.to(device)
    state = TrainState(model, make_optimizer(model, job.config.optimizer), Alarms(job.config.alarms))
    if checkpoint is not None:
        saved = read_trainer_state(checkpoint.uri)
        state.optimizer.load_state_dict(saved["optimizer"])
        state.alarms.load_state_dict(saved["alarms"])
        state.step, state.stopped = saved["step"], checkpoint.stopped
        logger.info("continuing at step %d from %s", state.step, checkpoint.uri)
    return state


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over all trainable parameters, with weight decay on weights of linear layers only.

    Raises:
        RuntimeError: a trainable parameter is not in it, or there twice.
    """
    # fused: one kernel for all parameters. For a small model on a CPU the loop over parameters costs as much as the
    # step.
    groups: list[dict[str, Any]] = [dict(group) for group in parameter_groups(model, config.weight_decay)]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    check_all_optimized(model, optimizer)
    return optimizer


def check_all_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise unless every trainable parameter is in the optimizer exactly once.

    Raises:
        RuntimeError: naming the parameters.
    """
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    wrong = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and held.count(id(parameter)) != 1
    ]
    if wrong:
        raise RuntimeError(f"not exactly once in the optimizer: {', '.join(wrong)}")


class GradientCheck:
    """Sees to it that every trainable parameter gets a gradient, at least once in `cycle` steps.

    Args:
        model: whose parameters to look at.
        cycle: steps.
    """

    def __init__(self, model: nn.Module, cycle: int) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._cycle, self._steps = cycle, 0
        self._missing = set(self._parameters)

    def observe(self) -> None:
        """Look at the gradients of a step, before the next step clears them.

        Raises:
            RuntimeError: naming the parameters that no loss reached. Under DDP they would stall the next step.
        """
        self._missing = {name for name in self._missing if self._parameters[name].grad is None}
        self._steps += 1
        if self._steps < self._cycle:
            return
        if self._missing:
            wrong = [name for name in self._parameters if name in self._missing]
            raise RuntimeError(f"no loss reaches these trainable parameters: {', '.join(wrong)}")
        self._missing, self._steps = set(self._parameters), 0


def set_learning_rate(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, job: TrainJob) -> float:
    """Set and return the learning rate of a step (from 0): warm-up, then cosine to `min_lr` at the last step."""
    warmup = min(round(config.warmup_epochs * job.steps_per_epoch), max(0, job.total_steps - 1))
    lr = config.lr * warmup_cosine(step, job.total_steps, warmup, config.min_lr / config.lr)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
