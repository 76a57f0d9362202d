"""What changes while training: weights, optimizer, step, alarm counters; made new or taken from the last checkpoint."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from hvlm.losses.monitors import Alarms
from hvlm.losses.objective import Objective
from hvlm.models.hierarchical_vlm import HierarchicalVLM, build_model
from hvlm.models.input_norm import FeatureStatistics, InputNorm
from hvlm.models.optimization import freeze, parameter_groups, warmup_cosine
from pipelines.training.checkpoints import latest_checkpoint, load_weights, read_model_state, read_trainer_state
from pipelines.training.config import OptimizerConfig
from pipelines.training.job import TrainJob
from pipelines.training.stream import FeatureReader

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """`step` counts the optimizer steps that are done; `stopped` is the alarm that ended the training there."""

    model: HierarchicalVLM
    optimizer: torch.optim.Optimizer
    alarms: Alarms
    step: int = 0
    stopped: str | None = None

    def trainer_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights; plain values and tensors only."""
        return {"optimizer": self.optimizer.state_dict(), "step": self.step, "alarms": self.alarms.state_dict()}


def load_state(job: TrainJob, reader: FeatureReader, device: torch.device) -> TrainState:
    """Return the state of the last complete checkpoint of the job's output, or a new one.

    Args:
        job: what to train.
        reader: the train split, for the statistics of `input_norm: standard`.
        device: where the model goes.

    Raises:
        UserError: the checkpoint is damaged or of another architecture.
    """
    torch.manual_seed(job.config.seed)
    model = build_model(job.config.model, job.d_in, job.d_text)
    checkpoint = latest_checkpoint(job.config.output_uri)
    if checkpoint is not None:
        load_weights(model, read_model_state(checkpoint.uri), checkpoint.uri)
    else:
        set_input_statistics(model, reader)
    freeze(model, Objective(job.config.objective).unused_parts())
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


def check_all_have_gradients(model: nn.Module) -> None:
    """Raise unless the backward pass gave every trainable parameter a gradient.

    Raises:
        RuntimeError: naming the parameters. Under DDP they would stall the next step.
    """
    wrong = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if wrong:
        raise RuntimeError(f"no loss reaches these trainable parameters: {', '.join(wrong)}")


def set_learning_rate(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, job: TrainJob) -> float:
    """Set and return the learning rate of a step (from 0): warm-up, then cosine to `min_lr` at the last step."""
    warmup = min(round(config.warmup_epochs * job.steps_per_epoch), max(0, job.total_steps - 1))
    lr = config.lr * warmup_cosine(step, job.total_steps, warmup, config.min_lr / config.lr)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def set_input_statistics(model: HierarchicalVLM, reader: FeatureReader) -> None:
    """Give `input_norm: standard` the statistics of the train split; other kinds need none.

    Rank 0 reads the split and tells the others.
    """
    norm = model.encoder.input_norm
    if norm.kind != "standard":
        return
    moments: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        moments = [_statistics(norm, reader)]
    if dist.is_initialized():
        dist.broadcast_object_list(moments, src=0)
    norm.set_statistics(*moments[0])


def _statistics(norm: InputNorm, reader: FeatureReader) -> tuple[torch.Tensor, torch.Tensor]:
    statistics = FeatureStatistics(sum(norm.input_dims))
    for sample in range(len(reader.table)):
        statistics.update(torch.from_numpy(reader.video(sample).features_TI))
    return statistics.mean_and_std()
