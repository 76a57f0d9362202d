"""Reads weights from local files and puts them into a network, strictly: each key and each shape must fit.

Only tensors are read (`weights_only=True`, or safetensors): a weights file cannot run code.
"""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from hvlm.errors import UserError

_CHUNK_BYTES = 1 << 22
_MAX_LISTED = 8


def weights_identity(path: Path | None, seed: int) -> dict[str, Any]:
    """Return what identifies the weights: the sha256 of the file, or the seed of a random network (`path` None)."""
    return {"random": True, "seed": seed} if path is None else {"sha256": file_sha256(path)}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex; remembered per process while size and modification time stay.

    Raises:
        UserError: no such file, or no permission.
    """
    try:
        status = path.stat()
        return _sha256_of(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, str(error)) from error


@lru_cache(maxsize=32)
def _sha256_of(path: str, size_bytes: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file by name, on the CPU.

    `.safetensors`, or what `torch.save` wrote of a state dict (also the format before torch 1.6). A checkpoint that
    keeps its weights under `state_dict` is unwrapped and the `module.` prefix of a distributed run is taken off.

    Raises:
        UserError: no such file, not a weights file, or a file that holds more than tensors.
    """
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise _unreadable(
            path, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'empty'}"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if (
        not isinstance(loaded, Mapping)
        or not loaded
        or not all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        raise _unreadable(path, f"a {type(loaded).__name__} that is no mapping of names to tensors")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def load_strict(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, may_be_unused: Collection[str] = ()
) -> None:
    """Put `state` into `network`; every key of the network must be there in its shape, and nothing else.

    Args:
        network: on a real device.
        state: tensors by name.
        source: the file, for the message.
        may_be_unused: keys that the file may hold although the network has no such layer.

    Raises:
        UserError: missing, unknown or wrongly shaped keys, listed.
    """
    wanted = network.state_dict()
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    problems = {
        "missing": [key for key in wanted if key not in state],
        "unknown": [key for key in state if key not in wanted and key not in may_be_unused],
        "of another shape": [f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}" for key in misshapen],
    }
    found = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise UserError(
            what=f"weights file {source}",
            got="; ".join(found),
            expected=f"the {len(wanted)} tensors of {type(network).__name__} in this configuration",
            do="use the weights of this architecture, or the model, width and layer that the file was made with",
        )
    network.load_state_dict({key: state[key] for key in wanted})


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
    return ", ".join(keys[:_MAX_LISTED]) + more


def _unreadable(path: Path, got: str) -> UserError:
    return UserError(
        what=f"weights file {path}",
        got=got,
        expected="a readable state dict (tensors by name), .safetensors or written by torch.save",
        do="check the path and the download; re-save a pickled model or a TorchScript archive as its state_dict()",
    )
