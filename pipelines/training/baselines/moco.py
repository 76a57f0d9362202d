"""The MoCo-v2-style baseline as the trainer sees it."""

from collections.abc import Iterator, Mapping

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hvlm.data.batching import steps_per_epoch
from hvlm.data.collate import Batch
from hvlm.data.crops import Rows, crop_rows
from hvlm.errors import UserError
from hvlm.losses.baselines import queue_logits, queue_loss
from hvlm.losses.monitors import collapse_monitors
from hvlm.models.baselines import MoCo
from hvlm.models.hierarchical_vlm import build_model
from pipelines.store.manifest import Manifest
from pipelines.training.baselines.config import MoCoTrainConfig
from pipelines.training.gather import gather_rows
from pipelines.training.hierarchical_vlm.system import WholeVideoSystem, set_input_statistics
from pipelines.training.hierarchical_vlm.validation import CONTRAST_GAP, Measured, validate_batches
from pipelines.training.job import TrainJob
from pipelines.training.step import autocast, mix_seed
from pipelines.training.system import Pass, Prepared, RankContext


def prepare_moco(config: MoCoTrainConfig, manifest: Manifest) -> Prepared:
    """Return how long an epoch is.

    Raises:
        UserError: too few videos for a batch or for the queue.
    """
    num_samples = manifest.frame.filter(pl.col("split") == "train").height
    if config.moco.queue_size > num_samples:
        raise UserError(
            what="moco.queue_size",
            got=config.moco.queue_size,
            expected=f"at most the {num_samples} training samples: a video's own older keys are no negatives",
            do="lower it, e.g. to half of them",
        )
    return Prepared(steps_per_epoch=steps_per_epoch(num_samples, config.batching))


class MoCoSystem(WholeVideoSystem):
    """See `System`. Key network and queue are part of the model's state, so a training continues with them.

    Args:
        job: what is trained; config: its configuration.
        context: this rank.
    """

    def __init__(self, job: TrainJob, config: MoCoTrainConfig, context: RankContext) -> None:
        super().__init__(job, context, config.batching)
        self.config = config

    def build_model(self) -> MoCo:
        """Return the model with new weights, the key network equal to the backbone."""
        return MoCo(build_model(self.config.model, self.job.d_in), self.config.moco)

    def initialise(self, model: MoCo) -> None:
        """Set the statistics of `input_norm: standard`."""
        for network in (model.backbone, model.key):
            set_input_statistics(network, self.reader)

    def passes(self, model: nn.Module, batch: Batch, step: int) -> Iterator[Pass]:
        """Run the one forward pass of a step, and after its backward pass put its keys into the queue."""
        network: MoCo = model.module if isinstance(model, DistributedDataParallel) else model  # type: ignore[assignment]
        with autocast(self.context.device, self.config.precision):
            query_BE, key_BE = model(*self._views(batch, step))
        query_NE, key_NE = gather_rows(query_BE), gather_rows(key_BE)
        logits_NK = queue_logits(query_NE, key_NE, network.queue_QE, self.config.moco.temperature)
        loss = queue_loss(logits_NK)
        figures = {"loss/total": loss.detach(), "queue/hit_at_1": (logits_NK.argmax(1) == 0).float().mean()}
        yield Pass(loss, figures, gather_rows(batch.mask_BT))
        network.enqueue(key_NE)

    def _views(self, batch: Batch, step: int) -> tuple[Rows, Rows]:
        """Two parts of each video, drawn for the global batch: they do not depend on the number of ranks."""
        size, rank = len(batch.keys), self.context.rank
        generator = torch.Generator().manual_seed(mix_seed(self.config.seed, step))
        share_N4: Tensor = torch.rand(size * self.context.world_size, 4, generator=generator)
        share_B4 = share_N4[rank * size : (rank + 1) * size].to(self.context.device)
        rows = Rows(batch.features_BTI, batch.times_BT, batch.mask_BT)
        least = self.config.moco.min_crop
        return crop_rows(rows, share_B4[:, :2], least), crop_rows(rows, share_B4[:, 2:], least)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the collapse monitors on the dev split."""
        backbone: nn.Module = model.get_submodule("backbone")

        def measure(batch: Batch, number: int) -> Measured:
            with autocast(self.context.device, self.config.precision):
                output = backbone(batch.features_BTI, batch.times_BT, batch.mask_BT)
            return collapse_monitors(output.hidden_BTD, batch.mask_BT, prefix=self.monitor_prefix), None

        return validate_batches(model, self.dev, self.context.device, measure)

    def score(self, dev: Mapping[str, float]) -> float | None:
        """Return the contrast gap."""
        return dev.get(CONTRAST_GAP)
