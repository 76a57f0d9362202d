"""What a training is, once the configuration has met the store: everything a worker needs, as plain values.

`prepare` runs once, in the job's process. It pins the store's version, checks that data, model and earlier checkpoints
fit together, makes the text features and opens the MLflow run. Started again with the same `output_uri`, it finds the
pinned version and the run there.
"""

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl
from mlflow.exceptions import MlflowException

from hvlm.data.batching import steps_per_epoch
from hvlm.errors import UserError
from infra import storage
from infra.config_io import dump_config, flatten_config
from infra.tracking import DatasetReference, RunTracker, git_tags, open_run, tracking_errors
from pipelines.store.manifest import Manifest, open_manifest
from pipelines.training.checkpoints import CheckpointInfo, discard_damaged, latest_checkpoint, read_info
from pipelines.training.config import TrainConfig
from pipelines.training.text import EncodeText, make_text_table, read_metas, read_text_table

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
DATA_FILE = "data.json"
# A continued training must mean the same thing; where it computes, logs and keeps checkpoints may change.
_FIXED = ("seed", "epochs", "max_steps", "precision", "model", "objective", "text", "batching", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training on pinned data.

    Args:
        config: as given, with absolute URIs.
        encoders: (name, fingerprint) in the order of concatenation; d_in: their widths.
        d_text: width of the text features; text_uri: where they are. Both None without text.
        steps_per_epoch, total_steps: of the optimizer.
        run_id, tracking_uri: of the MLflow run.
    """

    config: TrainConfig
    store_version: int
    manifest_hash: str
    encoders: tuple[tuple[str, str], ...]
    d_in: tuple[int, ...]
    d_text: int | None
    text_uri: str | None
    steps_per_epoch: int
    total_steps: int
    run_id: str
    tracking_uri: str
    git_commit: str

    def open_manifest(self) -> Manifest:
        """Return the pinned manifest.

        Raises:
            UserError: the store no longer has what was pinned.
        """
        names = [f"{name}-{fingerprint[:8]}" for name, fingerprint in self.encoders]
        manifest = open_manifest(self.config.store_uri, names, self.store_version)
        if manifest.manifest_hash != self.manifest_hash:
            raise UserError(
                what=f"{self.config.store_uri} at version {self.store_version}",
                got=f"manifest {manifest.manifest_hash[:12]}",
                expected=f"manifest {self.manifest_hash[:12]}, as when the training began",
                do="restore the store, or train into a new output_uri",
            )
        return manifest

    def checkpoint_info(self, step: int) -> CheckpointInfo:
        """Return what a checkpoint of this job says of itself."""
        return CheckpointInfo(
            config=dump_config(self.config),
            encoders=self.encoders,
            d_in=self.d_in,
            d_text=self.d_text,
            store_uri=self.config.store_uri,
            store_version=self.store_version,
            manifest_hash=self.manifest_hash,
            step=step,
            git_commit=self.git_commit,
            run_id=self.run_id,
        )


def prepare(config: TrainConfig, encode: EncodeText | None = None) -> tuple[TrainJob, RunTracker]:
    """Return the training that a configuration and its store make, and its MLflow run.

    Args:
        config: of the job.
        encode: replaces the text tower (tests).

    Raises:
        UserError: the store, the annotations or earlier checkpoints do not fit the configuration.
    """
    record = _data_record(config.output_uri)
    manifest = _pinned_manifest(config, record)
    discard_damaged(config.output_uri)
    _check_continuation(config, record, manifest)
    d_in = tuple(_width(manifest, name) for name in manifest.encoders)
    num_samples = _count(manifest, "train")
    per_epoch = steps_per_epoch(num_samples, config.batching)
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    text_uri, d_text = None, None
    if config.model.alignment.enabled:
        text_uri = make_text_table(manifest, config.text, read_metas(manifest, ("train", "dev")), encode)
        d_text = read_text_table(text_uri).dim
    if record is None:
        _pin(config, manifest)
    tracker = open_run(config.tracking, storage.join(config.output_uri, RUN_FILE))
    job = TrainJob(
        config=config,
        store_version=manifest.version,
        manifest_hash=manifest.manifest_hash,
        encoders=tuple(manifest.encoders.items()),
        d_in=d_in,
        d_text=d_text,
        text_uri=text_uri if config.uses_text else None,
        steps_per_epoch=per_epoch,
        total_steps=total,
        run_id=tracker.run_id,
        tracking_uri=tracker.uri,
        git_commit=git_tags()["git.commit"],
    )
    try:
        with tracking_errors(tracker.uri):
            _record(job, tracker, manifest, num_samples)
    except (UserError, OSError, KeyboardInterrupt):
        with suppress(MlflowException, OSError):  # the first error is the one to tell
            tracker.finish("FAILED")
        raise
    return job, tracker


def _data_record(output_uri: str) -> dict[str, Any] | None:
    """Return what the first start of this output wrote down, None at the first start."""
    uri = storage.join(output_uri, DATA_FILE)
    with storage.reachable("output_uri", output_uri):  # what is read here is the first of this output
        if not storage.exists(uri):
            return None
        record: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return record


def _pinned_manifest(config: TrainConfig, record: dict[str, Any] | None) -> Manifest:
    """Return the manifest at the version that the first start pinned; at the first start, as the configuration says."""
    encoders, version = list(config.encoders) or None, config.store_version
    if record is not None:
        if config.store_uri != record["store_uri"] or version not in (None, record["version"]):
            raise UserError(
                what="store_uri",
                got=f"{config.store_uri}, version {version or 'newest'}",
                expected=f"{record['store_uri']}, version {record['version']}, on which {config.output_uri} began",
                do="keep them, or train into a new output_uri",
            )
        encoders = [f"{name}-{fingerprint[:8]}" for name, fingerprint in record["encoders"]]
        names = [name for name, _ in record["encoders"]]
        given = zip(config.encoders, names, encoders, strict=False)
        same = len(config.encoders) == len(names) and all(one in (name, exact) for one, name, exact in given)
        if config.encoders and not same:
            raise UserError(
                what="encoders",
                got=", ".join(config.encoders),
                expected=f"{', '.join(names)}, with which {config.output_uri} began",
                do="keep them, or train into a new output_uri",
            )
        return open_manifest(config.store_uri, encoders, record["version"])
    try:
        manifest = open_manifest(config.store_uri, encoders, version)
    except UserError as error:
        if error.what != "encoders":
            raise
        raise _with_encoders_there(error, config) from error
    if manifest.frame.height == 0:
        raise UserError(
            what="store_uri",
            got=f"{config.store_uri} without samples",
            expected="at least one published video that all encoders have",
            do="run jobs.extract first, or name other encoders",
        )
    if manifest.num_incomplete:
        logger.warning("%d videos lack one of the encoders and are left out", manifest.num_incomplete)
    return manifest


def _with_encoders_there(error: UserError, config: TrainConfig) -> UserError:
    """Return the error of an encoder that the store lacks with the override that trains on the others."""
    there = open_manifest(config.store_uri, None, config.store_version).encoders.items()
    names = {name for item in there for name in (item[0], f"{item[0]}-{item[1][:8]}")}
    kept = [name for name in config.encoders if name in names]
    do = f"{error.do}, or train without it: encoders=[{','.join(kept)}]" if kept else error.do
    return UserError(what=error.what, got=error.got, expected=error.expected, do=do)


def _pin(config: TrainConfig, manifest: Manifest) -> None:
    """Write down what this output is trained on and with, once all checks have passed.

    The run's parameters are final from the first start on, so the values are fixed from there, not from the first
    checkpoint.
    """
    record = {
        "store_uri": config.store_uri,
        "version": manifest.version,
        "manifest_hash": manifest.manifest_hash,
        "encoders": list(manifest.encoders.items()),
        "fixed": _fixed_values(config),
    }
    storage.atomic_write(storage.join(config.output_uri, DATA_FILE), json.dumps(record, indent=1).encode() + b"\n")


def _fixed_values(config: TrainConfig) -> dict[str, Any]:
    values = dump_config(config)
    return {key: values[key] for key in _FIXED} | {
        "stream": {"l2_normalise": config.stream.l2_normalise},
        "checkpoint": {"best_by": config.best_metric},
    }


def _check_continuation(config: TrainConfig, record: dict[str, Any] | None, manifest: Manifest) -> None:
    """Refuse to go on in an output of a training that means something else."""
    checkpoint = latest_checkpoint(config.output_uri)
    info = read_info(checkpoint.uri) if checkpoint else None
    earlier: dict[str, Any] = (record or {}).get("fixed", {})
    if not earlier and info is not None:  # data.json is gone, or is of a version that did not write them
        earlier = {key: info.config.get(key) for key in _FIXED}
    now = _fixed_values(config)
    changed = _differences(earlier, {key: now[key] for key in earlier})
    if info is not None and info.manifest_hash != manifest.manifest_hash:
        changed.append("the data (encoders or store version)")
    if changed:
        raise UserError(
            what="output_uri",
            got=f"{config.output_uri}, which was begun with other values of {', '.join(changed)}",
            expected="the same values to continue",
            do="name a new output_uri, or restore the values",
        )


def _record(job: TrainJob, tracker: RunTracker, manifest: Manifest, num_samples: int) -> None:
    tracker.log_config(flatten_config(job.config), dump_config(job.config))
    tracker.log_dataset(
        DatasetReference(
            name=job.config.store_uri.rstrip("/").rpartition("/")[2] or "store",
            store_uri=job.config.store_uri,
            version=manifest.version,
            manifest_hash=manifest.manifest_hash,
            num_samples=num_samples,
        )
    )
    num_dev = _count(manifest, "dev")
    if num_dev == 0:
        logger.warning("the dev split is empty: nothing is validated, and the last checkpoint counts as the best")
    tracker.set_tags(
        {"output_uri": job.config.output_uri, "num_samples.train": num_samples, "num_samples.dev": num_dev}
    )


def _width(manifest: Manifest, encoder: str) -> int:
    widths = manifest.frame[f"{encoder}.dim"].unique().to_list()
    if len(widths) != 1:
        raise UserError(
            what=f"features of '{encoder}'",
            got=f"widths {sorted(widths)}",
            expected="one width",
            do="run jobs.verify on the store",
        )
    return int(widths[0])


def _count(manifest: Manifest, split: str) -> int:
    return manifest.frame.filter(pl.col("split") == split).height


def _differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Return the keys whose values differ, as dotted paths."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            path
            for key in sorted(a.keys() | b.keys())
            for path in _differences(a.get(key), b.get(key), f"{prefix}{key}.")
        ]
    return [] if a == b else [prefix.rstrip(".")]
