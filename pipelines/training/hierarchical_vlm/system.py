"""HierarchicalVLM as the trainer sees it."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hvlm.data.batching import BatchingConfig, steps_per_epoch
from hvlm.data.collate import Batch
from hvlm.losses.objective import Objective
from hvlm.models.hierarchical_vlm import HierarchicalVLM, build_model
from hvlm.models.input_norm import FeatureStatistics, InputNorm
from hvlm.models.optimization import freeze
from pipelines.store.manifest import Manifest
from pipelines.training.hierarchical_vlm.config import HierarchicalVLMTrainConfig
from pipelines.training.hierarchical_vlm.step import run_step
from pipelines.training.hierarchical_vlm.stream import StreamPlan, TrainStream
from pipelines.training.hierarchical_vlm.validation import (
    CONTRAST_GAP,
    MONITOR_PREFIX,
    RECALL,
    ValidationData,
    validate,
)
from pipelines.training.job import TrainJob
from pipelines.training.step import autocast, mix_seed
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.system import Pass, Prepared, RankContext
from pipelines.training.text import EncodeText, TextTable, make_text_table, read_metas, read_text_table, texts_of_video


def prepare_hierarchical_vlm(
    config: HierarchicalVLMTrainConfig, manifest: Manifest, encode: EncodeText | None
) -> Prepared:
    """Return how long an epoch is, and make the text features.

    Raises:
        UserError: too few videos for a batch, no text tower of this store, or no text.
    """
    num_samples = manifest.frame.filter(pl.col("split") == "train").height
    per_epoch = steps_per_epoch(num_samples, config.batching)
    if not config.model.alignment.enabled:
        return Prepared(steps_per_epoch=per_epoch)
    metas = read_metas(manifest, ("train", "dev"))
    texts = {meta.key: texts_of_video(meta, config.text.templates) for meta in metas}
    uri = make_text_table(manifest, config.text, texts, encode)
    return Prepared(
        steps_per_epoch=per_epoch, d_text=read_text_table(uri).dim, text_uri=uri if config.uses_text else None
    )


class WholeVideoSystem:
    """What HierarchicalVLM and the baselines on its stream share; see `System`.

    Args:
        job: what is trained.
        context: this rank.
        batching: of the videos.
        texts: one of each video's goes with it; None trains without.
    """

    gradient_cycle = 1
    partial_passes = False
    monitor_prefix = MONITOR_PREFIX

    def __init__(
        self, job: TrainJob, context: RankContext, batching: BatchingConfig, texts: TextTable | None = None
    ) -> None:
        self.job, self.context, self.batching, self.texts = job, context, batching, texts
        manifest, config = job.open_manifest(), job.config
        self.reader, dev = (FeatureReader(SampleTable.of(manifest, s), config.stream) for s in ("train", "dev"))
        self.dev = ValidationData(reader=dev, texts=texts, batching=batching)

    def stream(self, first_step: int, num_steps: int) -> TrainStream:
        """Return this rank's part of the global batches."""
        plan = StreamPlan(
            batching=self.batching,
            seed=self.job.config.seed,
            rank=self.context.rank,
            world_size=self.context.world_size,
            first_step=first_step,
            num_steps=num_steps,
        )
        return TrainStream(self.reader, self.texts, plan, self.job.config.stream)

    def progress(self, step: int) -> dict[str, float]:
        """Return the epoch."""
        return {"epoch": step / self.job.steps_per_epoch}


class HierarchicalVLMSystem(WholeVideoSystem):
    """See `System`.

    Args:
        job: what is trained; config: its configuration.
        context: this rank.
    """

    def __init__(self, job: TrainJob, config: HierarchicalVLMTrainConfig, context: RankContext) -> None:
        texts = None if job.text_uri is None else read_text_table(job.text_uri)
        super().__init__(job, context, config.batching, texts)
        self.config = config
        self.objective = Objective(config.objective)

    def build_model(self) -> HierarchicalVLM:
        """Return the model with new weights; the parts that the objective does not reach are frozen."""
        model = build_model(self.config.model, self.job.d_in, self.job.d_text)
        freeze(model, self.objective.unused_parts())
        return model

    def initialise(self, model: HierarchicalVLM) -> None:
        """Set the statistics of `input_norm: standard`."""
        set_input_statistics(model, self.reader)

    def passes(self, model: nn.Module, batch: Batch, step: int) -> Iterator[Pass]:
        """Run the one forward pass of a step."""
        with autocast(self.context.device, self.config.precision):
            result = run_step(model, self.objective, batch, seed=mix_seed(self.config.seed, step), gather=True)
        figures = {f"loss/{name}": value.detach() for name, value in result.losses.items()}
        yield Pass(result.losses["total"], figures, result.batch.mask_NT)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return losses, collapse monitors and retrieval on the dev split."""
        return validate(model, self.objective, self.dev, self.context.device, self.config.precision)

    def score(self, dev: Mapping[str, float]) -> float | None:
        """Return the recall, or the contrast gap."""
        return dev.get(RECALL if self.config.best_metric == "text_to_video" else CONTRAST_GAP)


def set_input_statistics(model: HierarchicalVLM, reader: FeatureReader) -> None:
    """Give `input_norm: standard` the statistics of the train split; other kinds need none.

    Rank 0 reads the split and tells the others.
    """
    norm = model.encoder.input_norm
    if norm.kind != "standard":
        return
    moments: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        moments = [_statistics(norm, reader)]
    if dist.is_initialized():
        dist.broadcast_object_list(moments, src=0)
    norm.set_statistics(*moments[0])


def _statistics(norm: InputNorm, reader: FeatureReader) -> tuple[Tensor, Tensor]:
    statistics = FeatureStatistics(sum(norm.input_dims))
    for sample in range(len(reader.table)):
        statistics.update(torch.from_numpy(reader.video(sample).features_TI))
    return statistics.mean_and_std()
