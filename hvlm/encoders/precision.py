"""In which number format a frozen encoder calculates.

`auto` means float32 on every device: features must not depend on the machine that happened to make them, and their
fingerprint is computed where no GPU need be. Reduced precision must be asked for. It runs under autocast: weights stay
float32, layer norms and reductions stay float32, matrix products and convolutions are reduced.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hvlm.config import require
from hvlm.encoders.config import Precision
from hvlm.errors import UserError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """Return the torch device, checked to exist here.

    Raises:
        UserError: not a device name, or a GPU that this process does not see.
    """
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UserError(what="device", got=device, expected="'cpu' or 'cuda'", do="set the encoder's device") from error
    if resolved.type == "cuda":
        require(
            torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count(),
            what="device",
            got=f"{device} with {torch.cuda.device_count()} GPUs visible",
            expected="a GPU that this process sees",
            do="use device: cpu, or give the encoder a GPU (num_gpus) on a machine that has one",
        )
    return resolved


def stated_precision(precision: Precision) -> str:
    """Return what `precision` stands for, on any device: the value that goes into an encoder's identity."""
    return "fp32" if precision == "auto" else precision


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the format of the matrix products for `precision` on `device`.

    Raises:
        UserError: `fp16` on a CPU, which has no fast float16 products.
    """
    require(
        not (precision == "fp16" and device.type == "cpu"),
        what="precision",
        got="fp16 on cpu",
        expected="fp32, bf16 or auto on a CPU",
        do="set precision: auto",
    )
    return _DTYPES[stated_precision(precision)]


@contextmanager
def inference(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run without gradients, with matrix products in `dtype`; float32 on a GPU means no TF32 convolutions either."""
    with torch.inference_mode():
        if dtype != torch.float32:
            with torch.autocast(device.type, dtype=dtype):
                yield
        elif device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        else:
            yield
