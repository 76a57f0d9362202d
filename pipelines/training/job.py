"""What a training is, once the configuration has met the store: everything a worker needs, as plain values."""

from dataclasses import dataclass

from hvlm.errors import UserError
from infra.config_io import dump_config
from pipelines.store.manifest import Manifest, open_manifest
from pipelines.training.checkpoints import CheckpointInfo
from pipelines.training.config import TrainConfig


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
