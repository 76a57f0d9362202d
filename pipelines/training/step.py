"""What every step needs, whatever is trained: its precision and its seeds."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context of the forward pass: bfloat16 on a GPU where asked for, else float32."""
    if device.type == "cuda" and precision == "bf16":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def mix_seed(*parts: int) -> int:
    """Return a well-mixed 32-bit seed of some numbers, e.g. (run's seed, step, rank)."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])
