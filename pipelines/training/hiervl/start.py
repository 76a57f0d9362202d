"""`start: child_only`: clip and text encoder come from a finished child-only training; which one is written down."""

import json
from typing import Any

from hvlm.errors import UserError
from hvlm.models.hiervl import HierVL
from infra import storage
from infra.config_io import dump_config
from pipelines.store.manifest import Manifest
from pipelines.training.checkpoints import CheckpointInfo, find_checkpoint, read_info, read_model_state, weights_sha256
from pipelines.training.hiervl.config import HierVLTrainConfig

START_FILE = "start.json"
_NEW = "aggregator."  # the part that a child-only training has not


def pin_start(config: HierVLTrainConfig, manifest: Manifest, d_text: int) -> dict[str, object]:
    """Write into `output_uri` which weights the training starts from; return it as tags of the run.

    The first start decides: a better checkpoint of the other training that comes later changes nothing.

    Raises:
        UserError: no such checkpoint, or not one of a child-only training on features and texts like these.
    """
    if config.start_checkpoint is None:
        return {}
    file = storage.join(config.output_uri, START_FILE)
    pinned: dict[str, Any] = json.loads(storage.read_bytes(file)) if storage.exists(file) else {}
    if pinned.get("given") != config.start_checkpoint:
        checkpoint = find_checkpoint(config.start_checkpoint)
        info = read_info(checkpoint.uri)
        _check(config, info, checkpoint.uri, (tuple(manifest.encoders.items()), d_text))
        pinned = {
            "given": config.start_checkpoint,
            "checkpoint": checkpoint.uri,
            "step": checkpoint.step,
            "run_id": info.run_id,
            "weights_sha256": weights_sha256(checkpoint.uri),
        }
        storage.atomic_write(file, json.dumps(pinned, indent=1).encode() + b"\n")
    return {f"start.{name}": value for name, value in pinned.items() if name != "given"}


def load_start(model: HierVL, output_uri: str) -> None:
    """Give a new model the weights that `pin_start` wrote down; nothing where it wrote none.

    Raises:
        UserError: the weights are gone, others than at the first start, or of other sizes.
    """
    file = storage.join(output_uri, START_FILE)
    if not storage.exists(file):
        return
    pinned = json.loads(storage.read_bytes(file))
    uri, sha256 = pinned["checkpoint"], weights_sha256(pinned["checkpoint"])
    if sha256 != pinned["weights_sha256"]:
        raise _unfit(uri, f"weights {sha256[:12]}", f"weights {pinned['weights_sha256'][:12]}, as at the first start")
    try:
        missing, unexpected = model.load_state_dict(read_model_state(uri), strict=False)
    except RuntimeError as error:
        raise _unfit(
            uri, " ".join(str(error).split())[:400], "encoders of the sizes of model.clip and model.dim"
        ) from error
    wrong = [*unexpected, *(name for name in missing if not name.startswith(_NEW))]
    if wrong:
        raise _unfit(uri, f"other parts: {', '.join(wrong[:5])}", "the clip and text encoder of this configuration")


def _check(
    config: HierVLTrainConfig, info: CheckpointInfo, uri: str, expected: tuple[tuple[tuple[str, str], ...], int]
) -> None:
    model = info.config.get("model", {})
    kind = model.get("schedule", {}).get("kind") if info.config.get("system") == "hiervl" else None
    if kind == "child" and model.get("summaries_as_captions"):
        kind = "clips with summaries"
    if kind != "child":
        raise _unfit(uri, f"a training of {kind or info.config.get('system', 'hierarchical_vlm')}", "a child-only one")
    if (tuple(tuple(each) for each in info.encoders), info.d_text) != expected:
        raise _unfit(uri, "features or texts of other encoders", f"those of {config.store_uri}")
    mine = dump_config(config)
    for section, name in (("text", "encoder"), ("text", "lora"), ("stream", "l2_normalise")):
        given, own = info.config[section].get(name), mine[section][name]
        if given != own:
            raise _unfit(uri, f"{section}.{name} {given}", f"{own}, as here")


def _unfit(uri: str, got: str, expected: str) -> UserError:
    return UserError(
        what=f"start_checkpoint {uri}",
        got=got,
        expected=expected,
        do="name another one, or train it with preset: child_only",
    )
