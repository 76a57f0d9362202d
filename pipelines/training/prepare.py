"""The start of a training, in the job's process: `prepare` makes the `TrainJob`.

It pins the store's version, checks that data, model and earlier checkpoints fit together, lets the system prepare its
data and opens the MLflow run. Started again with the same `output_uri`, it finds the pinned version and the run there.
"""

import json
import logging
from typing import Any

import polars as pl

from hvlm.errors import UserError
from infra import storage
from infra.config_io import dump_config, flatten_config
from infra.tracking import DatasetReference, RunTracker, git_tags, open_run, tracking_errors
from pipelines.store.manifest import Manifest, open_manifest
from pipelines.training.checkpoints import discard_damaged, latest_checkpoint, read_info
from pipelines.training.config import TrainConfig
from pipelines.training.job import TrainJob
from pipelines.training.registry import DEFAULT_SYSTEM, prepare_system
from pipelines.training.system import Prepared
from pipelines.training.text import EncodeText

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
DATA_FILE = "data.json"


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
    prepared = prepare_system(config, manifest, encode)
    per_epoch = prepared.steps_per_epoch
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    if record is None:
        _pin(config, manifest)
    tracker = open_run(config.tracking, storage.join(config.output_uri, RUN_FILE))
    job = TrainJob(
        config=config,
        store_version=manifest.version,
        manifest_hash=manifest.manifest_hash,
        encoders=tuple(manifest.encoders.items()),
        d_in=d_in,
        d_text=prepared.d_text,
        text_uri=prepared.text_uri,
        steps_per_epoch=per_epoch,
        total_steps=total,
        run_id=tracker.run_id,
        tracking_uri=tracker.uri,
        git_commit=git_tags()["git.commit"],
    )
    with tracker.finished_on_error(), tracking_errors(tracker.uri):
        _record(job, tracker, manifest, prepared)
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
    return {key: values[key] for key in config.FIXED} | {
        "stream": {"l2_normalise": config.stream.l2_normalise},
        "checkpoint": {"best_by": config.best_metric},
    }


def _check_continuation(config: TrainConfig, record: dict[str, Any] | None, manifest: Manifest) -> None:
    """Refuse to go on in an output of a training that means something else."""
    checkpoint = latest_checkpoint(config.output_uri)
    info = read_info(checkpoint.uri) if checkpoint else None
    earlier: dict[str, Any] = (record or {}).get("fixed", {})
    if not earlier and info is not None:  # data.json is gone, or is of a version that did not write them
        earlier = {key: info.config[key] for key in config.FIXED if key in info.config}
    if earlier:
        earlier.setdefault("system", DEFAULT_SYSTEM)  # what began before there were several did not say it
        if isinstance(earlier.get("optimizer"), dict):  # nor how often it accumulates
            earlier["optimizer"].setdefault("accumulate_steps", 1)
    now = _fixed_values(config)
    changed = _differences(earlier, {key: now.get(key) for key in earlier})
    if info is not None and info.manifest_hash != manifest.manifest_hash:
        changed.append("the data (encoders or store version)")
    if changed:
        raise UserError(
            what="output_uri",
            got=f"{config.output_uri}, which was begun with other values of {', '.join(changed)}",
            expected="the same values to continue",
            do="name a new output_uri, or restore the values",
        )


def _record(job: TrainJob, tracker: RunTracker, manifest: Manifest, prepared: Prepared) -> None:
    num_samples = _count(manifest, "train")
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
    counts = {"num_samples.train": num_samples, "num_samples.dev": num_dev}
    tracker.set_tags({"output_uri": job.config.output_uri, **counts, **prepared.tags})


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
