"""Weight-decay groups, the learning-rate curve, and which parts of a model an objective reaches."""

import math
from collections.abc import Iterable
from typing import TypedDict

from torch import nn


class ParameterGroup(TypedDict):
    """One group as `torch.optim.AdamW` takes it."""

    params: list[nn.Parameter]
    weight_decay: float


def parameter_groups(model: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Trainable parameters in two groups: weights of linear layers with decay, all else (norms, biases, scales, pyramid
    scores) without.

    Returns:
        [decayed, not decayed]; each trainable parameter is in exactly one, also when two modules share it.
    """
    decayed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            decayed.update({id(p): p for p in module.parameters() if p.ndim > 1 and p.requires_grad})
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in decayed]
    return [
        {"params": list(decayed.values()), "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def warmup_cosine(step: int, total: int, warmup: int, min_ratio: float) -> float:
    """Factor of the base learning rate at `step` in 0 … total − 1, to be set before every optimizer step.

    It rises linearly over `warmup` steps (the first step is 1 / warmup, not 0), then falls along a cosine to exactly
    `min_ratio` at step total − 1; beyond that it stays there. A warm-up of `total` steps or more is cut to total − 1.
    """
    warmup = min(warmup, total - 1)
    if step < warmup:
        return (step + 1) / warmup
    span = total - 1 - warmup
    progress = min(1.0, (step - warmup) / span) if span > 0 else 1.0
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


def freeze(model: nn.Module, part_names: Iterable[str]) -> int:
    """Stop the training of the named parts (`Objective.unused_parts`), so that DDP waits for no gradient of theirs.

    Returns:
        the number of parameters frozen.
    """
    count = 0
    for name in part_names:
        part = getattr(model, name, None)
        if part is None:
            continue
        for parameter in part.parameters():
            parameter.requires_grad_(False)
            count += parameter.numel()
    return count
