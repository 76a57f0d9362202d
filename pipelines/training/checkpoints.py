"""Checkpoints in storage: one folder each, written so that a half-written one is never taken.

    {output_uri}/checkpoints/step-000000400/model.safetensors   weights, without a wrapper's prefix
                                            trainer_state.pt    optimizer, step, data position (a weights-only load)
                                            config.json         what the weights mean: CheckpointInfo
                                            complete.json       written last: step, metrics, sizes, sha256 of the others

A folder without a valid `complete.json` does not exist for any reader. Deleting removes that file first.
"""

import hashlib
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from hvlm.errors import UserError
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig, build_model
from infra import storage
from infra.config_io import build_config

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
FOLDER = "checkpoints"
MODEL_FILE, TRAINER_FILE, INFO_FILE, COMPLETE_FILE = (
    "model.safetensors",
    "trainer_state.pt",
    "config.json",
    "complete.json",
)
# A baseline trains a HierarchicalVLM inside a model of its own (`hvlm.models.baselines`).
_WITH_BACKBONE, _BACKBONE = ("supervised", "moco"), "backbone."
WITH_HIERARCHICAL_VLM = ("hierarchical_vlm", *_WITH_BACKBONE)
"""The systems whose checkpoints `load_model` reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint's weights mean, and where they come from.

    Args:
        config: the resolved training configuration as plain values; `config["model"]` builds the model.
        encoders: (name, fingerprint) in the order in which their features were concatenated.
        d_in: width of each encoder's features, in that order. d_text: width of the text features, None without text.
        store_uri, store_version, manifest_hash: the pinned training data.
        step: optimizer steps done. git_commit, run_id: of the training run.
    """

    config: dict[str, Any]
    encoders: tuple[tuple[str, str], ...]
    d_in: tuple[int, ...]
    d_text: int | None
    store_uri: str
    store_version: int
    manifest_hash: str
    step: int
    git_commit: str
    run_id: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint. `score`: what "best" compares, higher is better, None where nothing was measured.
    `stopped`: the alarm that ended the training there."""

    uri: str
    step: int
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointContent:
    """Everything that goes into a checkpoint folder."""

    model: Mapping[str, Tensor]
    trainer: Mapping[str, Any]
    info: CheckpointInfo
    metrics: Mapping[str, float]
    score: float | None
    stopped: str | None = None


def save_checkpoint(output_uri: str, content: CheckpointContent) -> Checkpoint:
    """Write a checkpoint and return it; its marker is the last file, so a crash before leaves nothing that counts.

    Raises:
        UserError: the disk is full or may not be written.
    """
    uri = storage.join(output_uri, FOLDER, f"step-{content.info.step:09d}")
    storage.remove(storage.join(uri, COMPLETE_FILE))  # of an earlier, half-deleted or now outdated one
    trainer = io.BytesIO()
    torch.save(dict(content.trainer), trainer)
    files = {
        MODEL_FILE: save_safetensors(
            {name: tensor.detach().cpu().contiguous() for name, tensor in content.model.items()}
        ),
        TRAINER_FILE: trainer.getvalue(),
        INFO_FILE: _json(asdict(content.info)),
    }
    for name, data in files.items():
        storage.atomic_write(storage.join(uri, name), data)
    finite = {key: float(value) for key, value in content.metrics.items() if math.isfinite(value)}
    marker = {
        "format_version": FORMAT_VERSION,
        "step": content.info.step,
        "score": content.score,
        "stopped": content.stopped,
        "metrics": finite,
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    storage.atomic_write(storage.join(uri, COMPLETE_FILE), _json(marker))
    return Checkpoint(uri=uri, step=content.info.step, score=content.score, metrics=finite, stopped=content.stopped)


def list_checkpoints(output_uri: str) -> list[Checkpoint]:
    """Return the complete checkpoints below a training output, oldest first."""
    root = storage.join(output_uri, FOLDER)
    files = storage.list_files(root)
    found = []
    for name in files:
        folder, _, file = name.rpartition("/")
        if file != COMPLETE_FILE:
            continue
        checkpoint = _read_marker(storage.join(root, folder), {n: files.get(f"{folder}/{n}") for n in _content_files()})
        if checkpoint is not None:
            found.append(checkpoint)
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def latest_checkpoint(output_uri: str) -> Checkpoint | None:
    """Return the complete checkpoint with the most steps, or None."""
    return max(list_checkpoints(output_uri), key=lambda checkpoint: checkpoint.step, default=None)


def best_checkpoint(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the highest score, the later one on a tie; None when none was scored."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return max(scored, key=lambda checkpoint: (checkpoint.score or 0.0, checkpoint.step), default=None)


def find_checkpoint(uri: str, which: Literal["best", "latest"] = "best") -> Checkpoint:
    """Return the checkpoint at a URI: a checkpoint's own folder, or the best or latest one of a training output.

    Raises:
        UserError: there is none.
    """
    uri = storage.absolute_uri(uri)
    with storage.reachable("checkpoint", uri):
        is_own = storage.exists(storage.join(uri, COMPLETE_FILE))
    if is_own:
        own = _read_marker(
            uri, {name: info for name, info in storage.list_files(uri).items() if name in _content_files()}
        )
        if own is not None:
            return own
    all_complete = list_checkpoints(uri)
    chosen = best_checkpoint(all_complete) if which == "best" else None
    chosen = chosen or (all_complete[-1] if all_complete else None)
    if chosen is None:
        raise UserError(
            what="checkpoint",
            got=uri,
            expected="a complete checkpoint folder or a training output_uri",
            do="check the URI, or train first",
        )
    return chosen


def discard_damaged(output_uri: str) -> None:
    """Take the marker off damaged checkpoints, from the newest one down to the first whose content verifies.

    For the job's process, before the ranks start: it reads a whole checkpoint.

    Raises:
        UserError: there are checkpoints, and all are damaged; they are left as they are.
    """
    damaged: list[Checkpoint] = []
    checkpoints = list_checkpoints(output_uri)
    for checkpoint in reversed(checkpoints):
        try:
            for name in _content_files():
                _verified(checkpoint.uri, name)
            break
        except UserError as error:
            logger.warning("%s is left out: %s", checkpoint.uri, error)
            damaged.append(checkpoint)
    if damaged and len(damaged) == len(checkpoints):
        raise UserError(
            what="output_uri",
            got=f"{output_uri}, whose checkpoints are all damaged",
            expected="an intact one to continue from",
            do="restore one, or train into a new output_uri",
        )
    for checkpoint in damaged:
        storage.remove(storage.join(checkpoint.uri, COMPLETE_FILE))


def retain(output_uri: str, keep_last: int) -> list[Checkpoint]:
    """Delete all but the last `keep_last` checkpoints and the best one; return what was deleted.

    Folders without a marker that are older than the newest checkpoint go as well: crashes left them.
    """
    checkpoints = list_checkpoints(output_uri)
    best = best_checkpoint(checkpoints)
    deleted = [checkpoint for checkpoint in checkpoints[:-keep_last] if checkpoint != best]
    for checkpoint in deleted:
        for name in (COMPLETE_FILE, *_content_files()):
            storage.remove(storage.join(checkpoint.uri, name))
    if checkpoints:
        root, newest = storage.join(output_uri, FOLDER), checkpoints[-1].uri.rpartition("/")[2]
        files = storage.list_files(root)
        for name in files:
            folder = name.partition("/")[0]
            marker = f"{folder}/{COMPLETE_FILE}"
            if not folder.startswith("step-") or folder >= newest or marker in files:
                continue
            if not storage.exists(storage.join(root, marker)):  # it may only be listed late
                storage.remove(storage.join(root, name))
    return deleted


def read_info(uri: str) -> CheckpointInfo:
    """Return what a checkpoint's weights mean.

    Raises:
        UserError: written by a newer version of the program, or damaged.
    """
    values = json.loads(_verified(uri, INFO_FILE))
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            what=f"{uri}, format_version",
            got=version,
            expected=str(FORMAT_VERSION),
            do="use the program version that wrote it",
        )
    values["encoders"] = tuple((name, fingerprint) for name, fingerprint in values["encoders"])
    values["d_in"] = tuple(values["d_in"])
    return CheckpointInfo(**values)


def read_model_state(uri: str) -> dict[str, Tensor]:
    """Return the weights by name, on the CPU."""
    try:
        state: dict[str, Tensor] = load_safetensors(_verified(uri, MODEL_FILE))
    except SafetensorError as error:
        raise _damaged(uri, MODEL_FILE, str(error)) from error
    return state


def read_trainer_state(uri: str) -> dict[str, Any]:
    """Return the optimizer state and the position, on the CPU. Nothing in the file can run code."""
    state: dict[str, Any] = torch.load(io.BytesIO(_verified(uri, TRAINER_FILE)), map_location="cpu", weights_only=True)
    return state


def load_model(uri: str, device: str = "cpu") -> tuple[HierarchicalVLM, CheckpointInfo]:
    """Return the model of a checkpoint, in evaluation mode, and what it means; of a baseline, its backbone.

    Raises:
        UserError: damaged, of a newer format, or its weights do not fit the architecture its config names.
    """
    info = read_info(uri)
    system = info.config.get("system", "hierarchical_vlm")  # what was written before there were several did not say it
    if system not in WITH_HIERARCHICAL_VLM:
        raise UserError(
            what="checkpoint",
            got=f"{uri}, a training of system {system}",
            expected="a training of hierarchical_vlm, or of a baseline with its model inside",
            do=f"set system: {system} in the YAML of jobs.evaluate",
        )
    config = build_config(HierarchicalVLMConfig, info.config["model"], origin=f"{uri}/{INFO_FILE}, model")
    model = build_model(config, info.d_in, info.d_text)
    state = read_model_state(uri)
    if system in _WITH_BACKBONE:
        state = {name.removeprefix(_BACKBONE): each for name, each in state.items() if name.startswith(_BACKBONE)}
    load_weights(model, state, uri)
    return model.to(device).eval(), info


def weights_sha256(uri: str) -> str:
    """Return the hash of a checkpoint's weights, which tells them from any others.

    Raises:
        UserError: no complete checkpoint.
    """
    return hashlib.sha256(_verified(uri, MODEL_FILE)).hexdigest()


def load_weights(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load weights into a model of the same architecture.

    Raises:
        UserError: names or shapes differ.
    """
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UserError(
            what=origin,
            got="weights of another architecture: " + " ".join(str(error).split())[:400],
            expected="the architecture of this configuration",
            do="use the model section that the checkpoint was trained with",
        ) from error


def _content_files() -> tuple[str, ...]:
    return MODEL_FILE, TRAINER_FILE, INFO_FILE


def _read_marker(uri: str, files: Mapping[str, dict[str, Any] | None]) -> Checkpoint | None:
    """Return the checkpoint if its marker can be read and names files of the sizes that are there, else None."""
    try:
        marker = json.loads(storage.read_bytes(storage.join(uri, COMPLETE_FILE)))
        whole = all((files.get(name) or {}).get("size") == entry["size"] for name, entry in marker["files"].items())
        if whole and set(marker["files"]) == set(_content_files()):
            return Checkpoint(
                uri=uri,
                step=int(marker["step"]),
                score=marker["score"],
                metrics=marker["metrics"],
                stopped=marker.get("stopped"),
            )
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        logger.warning("%s is not taken as a checkpoint: %s", uri, error)
        return None
    logger.warning("%s is not taken as a checkpoint: its files are not those of its %s", uri, COMPLETE_FILE)
    return None


def _verified(uri: str, name: str) -> bytes:
    try:
        marker = json.loads(storage.read_bytes(storage.join(uri, COMPLETE_FILE)))
        data = storage.read_bytes(storage.join(uri, name))
        expected = marker["files"][name]["sha256"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(
            what="checkpoint", got=f"{uri}: {error}", expected="a complete checkpoint", do="name another one"
        ) from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise _damaged(uri, name, "its sha256 is not that of complete.json")
    return data


def _damaged(uri: str, name: str, why: str) -> UserError:
    return UserError(what=f"{uri}/{name}", got=why, expected="the file that was written", do="use another checkpoint")


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
