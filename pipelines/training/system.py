"""What the trainer knows of what it trains. Each system is a package beside this module; `registry` names them.

Loop, state, checkpoints, alarms, tracking and Ray know only this.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset


class StepBatch(Protocol):
    """One rank's data of one optimizer step."""

    @property
    def num_bad_rows(self) -> int:
        """Rows of features that were left out as not finite."""
        ...

    def to(self, device: torch.device) -> Self: ...

    def pin_memory(self) -> Self: ...

    def split(self, count: int) -> list[Self]:
        """Return it in `count` equal parts, the same number of rows of each level in all."""
        ...


B = TypeVar("B", bound=StepBatch)


@dataclass(frozen=True, slots=True)
class RankContext:
    """Which of how many ranks this is, and on what it computes."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a system makes of its configuration and the store, once, before the workers start.

    Args:
        steps_per_epoch: of the optimizer.
        d_text: width of the text features; text_uri: where the workers read them. None without text.
        tags: counts of what is trained on, for the MLflow run.
    """

    steps_per_epoch: int
    d_text: int | None = None
    text_uri: str | None = None
    tags: Mapping[str, object] = field(default_factory=dict)


class Pass(NamedTuple):
    """One forward pass of a step.

    total: what is differentiated. figures: by their name below `train/`, of which the log shows means over the steps
    that have them. mask_NT: bool, the frames of the global batch, True = real.
    """

    total: Tensor
    figures: Mapping[str, Tensor]
    mask_NT: Tensor


class System(Protocol):
    """One rank's view of what is trained.

    `gradient_cycle`: after so many steps in a row every trainable parameter must have had a gradient.
    `partial_passes`: whether a pass may leave trainable parameters out, of which DDP must know.
    `monitor_prefix`: of the collapse monitors among the dev metrics.
    """

    gradient_cycle: int
    partial_passes: bool
    monitor_prefix: str

    def build_model(self) -> nn.Module:
        """Return the model with new weights, without what no loss reaches."""
        ...

    def initialise(self, model: Any) -> None:
        """Give a new model what it takes from data or from another training. All ranks call it together."""
        ...

    def stream(self, first_step: int, num_steps: int) -> IterableDataset[Any]:
        """Return this rank's `StepBatch`es from step `first_step` on."""
        ...

    def passes(self, model: nn.Module, batch: Any, step: int) -> Iterator[Pass]:
        """Run the forward passes of a step, each when it is asked for, so that the one before can be differentiated.

        Args:
            model: of `build_model`, or its DDP wrapper.
            batch: of the stream, on the device.
            step: steps done before; it seeds what is sampled, alike on all ranks.
        """
        ...

    def progress(self, step: int) -> dict[str, float]:
        """Return where a training stands after `step` steps, by names below `train/`."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the dev metrics, the same on all ranks; empty without dev samples. All ranks call it together."""
        ...

    def score(self, dev: Mapping[str, float]) -> float | None:
        """Return what "best" compares, higher is better; never a loss."""
        ...
