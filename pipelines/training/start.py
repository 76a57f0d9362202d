"""`start_checkpoint`: a training that begins with the weights of another one; which ones is written down.

The first start decides: a better checkpoint of the other training that comes later changes nothing.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from hvlm.errors import UserError
from infra import storage
from infra.config_io import dump_config
from pipelines.store.manifest import Manifest
from pipelines.training.checkpoints import CheckpointInfo, find_checkpoint, read_info, weights_sha256
from pipelines.training.config import TrainConfig

START_FILE = "start.json"


def pin_start(given: str | None, output_uri: str, check: Callable[[str, CheckpointInfo], None]) -> dict[str, object]:
    """Write into `output_uri` which weights the training starts from; return it as tags of the run.

    Args:
        given: a training's output or one checkpoint; None starts with new weights.
        output_uri: of the training that starts.
        check: of the checkpoint's URI and what it says of itself; raises where it does not fit.

    Raises:
        UserError: no such checkpoint, or whatever `check` raises.
    """
    if given is None:
        return {}
    file = storage.join(output_uri, START_FILE)
    pinned: dict[str, Any] = json.loads(storage.read_bytes(file)) if storage.exists(file) else {}
    if pinned.get("given") != given:
        checkpoint = find_checkpoint(given)
        info = read_info(checkpoint.uri)
        check(checkpoint.uri, info)
        pinned = {
            "given": given,
            "checkpoint": checkpoint.uri,
            "step": checkpoint.step,
            "run_id": info.run_id,
            "weights_sha256": weights_sha256(checkpoint.uri),
        }
        storage.atomic_write(file, json.dumps(pinned, indent=1).encode() + b"\n")
    return {f"start.{name}": value for name, value in pinned.items() if name != "given"}


def pinned_start(output_uri: str) -> str | None:
    """Return the checkpoint that `pin_start` wrote down; None where it wrote none.

    Raises:
        UserError: the weights are gone, or others than at the first start.
    """
    file = storage.join(output_uri, START_FILE)
    if not storage.exists(file):
        return None
    pinned = json.loads(storage.read_bytes(file))
    uri, sha256 = pinned["checkpoint"], weights_sha256(pinned["checkpoint"])
    if sha256 != pinned["weights_sha256"]:
        raise unfit(uri, f"weights {sha256[:12]}", f"weights {pinned['weights_sha256'][:12]}, as at the first start")
    return str(uri)


def check_inputs(
    uri: str,
    info: CheckpointInfo,
    config: TrainConfig,
    manifest: Manifest,
    settings: Sequence[tuple[str, str]] = (("stream", "l2_normalise"),),
) -> None:
    """Raise unless the checkpoint was trained on inputs like those of `config`.

    Args:
        uri: of the checkpoint; info: what it says of itself.
        config: of the training that starts; manifest: its data.
        settings: (section, name) of what must be equal in both configurations.

    Raises:
        UserError: naming what differs.
    """
    if tuple(tuple(each) for each in info.encoders) != tuple(manifest.encoders.items()):
        raise unfit(uri, "features of other encoders", f"those of {config.store_uri}")
    mine = dump_config(config)
    for section, name in settings:
        given, own = info.config[section].get(name), mine[section][name]
        if given != own:
            raise unfit(uri, f"{section}.{name} {given}", f"{own}, as here")


def unfit(uri: str, got: str, expected: str, do: str = "name another one") -> UserError:
    """Return the error of a checkpoint that a training cannot start from."""
    return UserError(what=f"start_checkpoint {uri}", got=got, expected=expected, do=do)
