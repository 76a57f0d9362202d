"""The baselines that are trained on labels (Direct Transformer, TSN-style) as the trainer sees them."""

from collections.abc import Iterator, Mapping

import polars as pl
from torch import nn

from hvlm.data.batching import steps_per_epoch
from hvlm.data.collate import Batch
from hvlm.data.crops import Rows
from hvlm.losses.baselines import label_hits, label_loss
from hvlm.losses.monitors import collapse_monitors
from hvlm.models.baselines import VideoClassifier
from hvlm.models.hierarchical_vlm import build_model
from hvlm.models.optimization import freeze
from pipelines.store.manifest import Manifest
from pipelines.training.baselines.config import SupervisedTrainConfig
from pipelines.training.baselines.labels import collect_labels, read_labels, write_labels
from pipelines.training.baselines.start import load_backbone, pin_backbone
from pipelines.training.gather import gather_rows
from pipelines.training.hierarchical_vlm.system import WholeVideoSystem, set_input_statistics
from pipelines.training.hierarchical_vlm.validation import CONTRAST_GAP, Measured, validate_batches
from pipelines.training.job import TrainJob
from pipelines.training.step import autocast
from pipelines.training.system import Pass, Prepared, RankContext
from pipelines.training.text import read_metas

HIT_AT_1 = "dev/video/labels/hit_at_1"


def prepare_supervised(config: SupervisedTrainConfig, manifest: Manifest) -> Prepared:
    """Return how long an epoch is; write the labels, and which weights it starts from, into `output_uri`.

    Raises:
        UserError: too few videos for a batch, too few classes, or no training to start from.
    """
    per_epoch = steps_per_epoch(manifest.frame.filter(pl.col("split") == "train").height, config.batching)
    table = collect_labels(read_metas(manifest, ("train", "dev")))
    write_labels(config.output_uri, table)
    tags = {"num_classes": len(table.classes), **pin_backbone(config, manifest)}
    return Prepared(steps_per_epoch=per_epoch, tags=tags)


class SupervisedSystem(WholeVideoSystem):
    """See `System`.

    Args:
        job: what is trained; config: its configuration.
        context: this rank.
    """

    def __init__(self, job: TrainJob, config: SupervisedTrainConfig, context: RankContext) -> None:
        super().__init__(job, context, config.batching)
        self.config = config
        self.labels = read_labels(config.output_uri)

    def build_model(self) -> VideoClassifier:
        """Return the model with new weights; the projector, which no loss reaches, is frozen."""
        backbone = build_model(self.config.model, self.job.d_in)
        freeze(backbone, ["projector"])
        return VideoClassifier(backbone, len(self.labels.classes), self.config.dropout)

    def initialise(self, model: VideoClassifier) -> None:
        """Take encoder and pyramid of the training to start from; else set the statistics of `input_norm: standard`."""
        if not load_backbone(model.backbone, self.config.output_uri):
            set_input_statistics(model.backbone, self.reader)

    def passes(self, model: nn.Module, batch: Batch, step: int) -> Iterator[Pass]:
        """Run the one forward pass of a step."""
        with autocast(self.context.device, self.config.precision):
            logits_BC, _ = model(Rows(batch.features_BTI, batch.times_BT, batch.mask_BT))
        label_NC = gather_rows(self.labels.matrix(batch.keys).to(self.context.device))
        logits_NC = gather_rows(logits_BC.float())
        loss = label_loss(logits_NC, label_NC)
        figures = {"loss/total": loss.detach(), "labels/hit_at_1": label_hits(logits_NC.detach(), label_NC)}
        yield Pass(loss, figures, gather_rows(batch.mask_BT))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return loss, hits and collapse monitors on the dev split."""

        def measure(batch: Batch, number: int) -> Measured:
            with autocast(self.context.device, self.config.precision):
                logits_BC, hidden_BTD = model(Rows(batch.features_BTI, batch.times_BT, batch.mask_BT))
            label_BC = self.labels.matrix(batch.keys).to(self.context.device)
            figures = collapse_monitors(hidden_BTD, batch.mask_BT, prefix=self.monitor_prefix)
            figures["dev/loss/total"] = float(label_loss(logits_BC, label_BC))
            return figures | {HIT_AT_1: float(label_hits(logits_BC, label_BC))}, None

        return validate_batches(model, self.dev, self.context.device, measure)

    def score(self, dev: Mapping[str, float]) -> float | None:
        """Return the share of dev videos whose best class is right, or the contrast gap."""
        return dev.get(HIT_AT_1 if self.config.best_metric == "label_hit_at_1" else CONTRAST_GAP)
