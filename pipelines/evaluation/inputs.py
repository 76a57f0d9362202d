"""From the config to what is evaluated: checkpoint, run and pinned manifest; checked against each other."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from infra import storage
from infra.config_io import build_config
from infra.tracking import TrackingConfig, redact, resolve_tracking_uri
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.run_layout import evaluation_folder
from pipelines.store.manifest import Manifest, open_manifest
from pipelines.store.spans import file_part
from pipelines.training.checkpoints import Checkpoint, CheckpointInfo, find_checkpoint, read_info
from pipelines.training.registry import DEFAULT_SYSTEM

logger = logging.getLogger(__name__)

_SEEN = {"train": "not held out: the model was trained on this split", "dev": "not held out: dev chose the checkpoint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationInputs:
    """What is evaluated.

    Args:
        checkpoint, info: the model and what its weights mean.
        manifest: the samples.
        num_excluded: videos of another store that were left out because the training read them; None on its own store.
        tracking: where the run is. run_id: the training's MLflow run; None when it is not there.
    """

    checkpoint: Checkpoint
    info: CheckpointInfo
    manifest: Manifest
    num_excluded: int | None
    tracking: TrackingConfig
    run_id: str | None

    @property
    def output_uri(self) -> str:
        """Where the training keeps the evaluation of this step."""
        return storage.join(str(self.info.config["output_uri"]), self.folder)

    @property
    def mark(self) -> str:
        """What tells an evaluation on another store from the training's own, wherever both are kept; empty for that."""
        return "" if self.num_excluded is None else f"store-{self.manifest.manifest_hash[:8]}"

    @property
    def folder(self) -> str:
        """Folder of the files, in the training's output and in the run."""
        return evaluation_folder(self.checkpoint.step, self.mark)

    def seen(self, split: str) -> str:
        """Return why figures of a split are not of held-out videos; empty where they are."""
        return "" if self.mark else _SEEN.get(split, "")  # of another store, nothing reported was seen

    def column_of(self, fingerprint: str) -> str:
        """Return the name of the store's column with a fingerprint."""
        return next(name for name, known in self.manifest.encoders.items() if known == fingerprint)


def open_inputs(config: EvaluateConfig) -> EvaluationInputs:
    """Return the checked inputs.

    Raises:
        UserError: no such run or checkpoint, one of another system, another encoder or width in the store, or no sample
            in a split (that the training has not read).
    """
    checkpoint = find_checkpoint(_checkpoint_uri(config), config.which)
    info = read_info(checkpoint.uri)
    _check_system(config, info, checkpoint.uri)
    tracking = config.tracking or _tracking_of(info)
    manifest, num_excluded = _open_manifest(config, info)
    _check_widths(manifest, info)
    _check_splits(manifest, config.splits)
    return EvaluationInputs(
        checkpoint=checkpoint,
        info=info,
        manifest=manifest,
        num_excluded=num_excluded,
        tracking=tracking,
        run_id=_known_run(tracking, info.run_id),
    )


def _check_system(config: EvaluateConfig, info: CheckpointInfo, uri: str) -> None:
    # What was written before there were several systems does not say it.
    trained = info.config.get("system", DEFAULT_SYSTEM)
    if trained not in config.TRAINED_AS:
        raise UserError(
            what="checkpoint",
            got=f"{uri}, a training of {trained}",
            expected=f"one of {' or '.join(config.TRAINED_AS)}, which system: {config.system} evaluates",
            do="name another checkpoint, or the system that evaluates this one",
        )


def _checkpoint_uri(config: EvaluateConfig) -> str:
    if config.checkpoint is not None:
        return config.checkpoint
    tracking = config.tracking or TrackingConfig()
    uri = resolve_tracking_uri(tracking)
    try:
        tags: Mapping[str, str] = MlflowClient(uri).get_run(config.run_id).data.tags
    except MlflowException as error:
        raise UserError(
            what="run_id",
            got=f"{config.run_id} ({redact(str(error))[:200]})",
            expected=f"a run on {redact(uri)}",
            do="copy the run's id from the MLflow UI, or set tracking.uri or MLFLOW_TRACKING_URI",
        ) from error
    latest = tags.get("checkpoint.latest")
    found = tags.get("checkpoint.best", latest) if config.which == "best" else latest
    if found is None:
        raise UserError(
            what="run_id",
            got=f"{config.run_id}, a run without a checkpoint",
            expected="a training run that wrote one",
            do="let the training reach its first checkpoint, or name another run",
        )
    return found


def _tracking_of(info: CheckpointInfo) -> TrackingConfig:
    return build_config(TrackingConfig, info.config.get("tracking") or {}, origin="the checkpoint's tracking")


def _known_run(tracking: TrackingConfig, run_id: str) -> str | None:
    try:
        run = MlflowClient(resolve_tracking_uri(tracking)).get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UserError(
                what="MLflow tracking",
                got=redact(str(error))[:200],
                expected="a server or SQLite file",
                do="check MLFLOW_TRACKING_URI",
            ) from error
        logger.warning("the training's run '%s' is not on this MLflow: a new run is made and linked to it", run_id)
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


def _open_manifest(config: EvaluateConfig, info: CheckpointInfo) -> tuple[Manifest, int | None]:
    """Return the manifest, and for another store the number of videos that were taken out of it."""
    encoders = [f"{name}-{fingerprint[:8]}" for name, fingerprint in info.encoders]
    pinned = config.store_uri is None or storage.absolute_uri(config.store_uri) == storage.absolute_uri(info.store_uri)
    uri = info.store_uri if config.store_uri is None else config.store_uri
    manifest = open_manifest(uri, encoders, info.store_version if pinned else None)
    if pinned and manifest.manifest_hash != info.manifest_hash:
        raise UserError(
            what=f"{uri}, version {info.store_version}",
            got=f"manifest hash {manifest.manifest_hash[:12]}",
            expected=f"{info.manifest_hash[:12]}, the data that the training read",
            do="restore the store, or train on this one",
        )
    return (manifest, None) if pinned else _without_seen(manifest, info, encoders, config.splits)


def _without_seen(
    manifest: Manifest, info: CheckpointInfo, encoders: list[str], splits: tuple[str, ...]
) -> tuple[Manifest, int]:
    """Leave out the reported videos whose id or content the training had in train or dev.

    Raises:
        UserError: the training's store cannot be read, so nobody can know; or nothing is left of a split.
    """
    try:
        training = open_manifest(info.store_uri, encoders, info.store_version)
    except UserError as error:
        raise UserError(
            what=f"the training's store {info.store_uri}, version {info.store_version}",
            got=str(error),
            expected="to be readable, to leave its training videos out of this evaluation",
            do="restore it",
        ) from error
    known = training.frame.filter(pl.col("split").is_in(["train", "dev"]))
    # By the file: one store may hold the whole video, the other its annotated spans.
    files = {file_part(digest) for digest in known["content_hash"]}
    same_file = pl.Series([file_part(digest) in files for digest in manifest.frame["content_hash"]], dtype=pl.Boolean)
    seen = pl.col("video_id").is_in(known["video_id"].to_list()) | pl.lit(same_file)
    left = manifest.frame.filter(~(pl.col("split").is_in(splits) & seen))
    for split in splits:
        if split in manifest.frame["split"] and split not in left["split"]:
            raise UserError(
                what="splits",
                got=f"'{split}' of {manifest.store_uri}, of which the training read every video",
                expected="videos that the model has not seen",
                do="evaluate another split or store",
            )
    return replace(manifest, frame=left), manifest.frame.height - left.height


def _check_widths(manifest: Manifest, info: CheckpointInfo) -> None:
    for (name, _), width in zip(info.encoders, info.d_in, strict=True):
        found = manifest.rows(name)["dim"].unique().to_list()
        if any(dim != width for dim in found):
            raise UserError(
                what=f"features '{name}' of {manifest.store_uri}",
                got=f"width {sorted(found)}",
                expected=f"{width}, as the checkpoint was trained with",
                do="extract with the encoder of the training, or evaluate another checkpoint",
            )


def _check_splits(manifest: Manifest, splits: tuple[str, ...]) -> None:
    counts = dict(manifest.frame.group_by("split").len().sort("split").iter_rows()) if manifest.frame.height else {}
    for split in splits:
        if not counts.get(split):
            raise UserError(
                what="splits",
                got=f"'{split}', which has no samples in {manifest.store_uri} version {manifest.version}",
                expected=f"one of {counts}",
                do="set splits to one of these, or publish with another split fraction",
            )
