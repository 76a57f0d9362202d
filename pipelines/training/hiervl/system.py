"""HierVL as the trainer sees it."""

from collections.abc import Iterator, Mapping

from torch import nn

from hvlm.models.hiervl import HierVL
from infra import storage
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.hiervl.levels import read_levels
from pipelines.training.hiervl.model import build_model
from pipelines.training.hiervl.prepare import LEVELS_FILE
from pipelines.training.hiervl.samples import LevelReader
from pipelines.training.hiervl.start import load_child_only
from pipelines.training.hiervl.step import run_pass
from pipelines.training.hiervl.stream import LevelBatches, LevelStream, LevelStreamPlan
from pipelines.training.hiervl.validation import MONITOR_PREFIX, RECALL, SUMMARY_MCQ, validate
from pipelines.training.job import TrainJob
from pipelines.training.step import autocast
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.system import Pass, RankContext
from pipelines.training.text import read_text_table


class HierVLSystem:
    """See `System`.

    An aggregator with parameters is reached by parent steps alone. On a child step it has no gradient and the optimizer
    leaves it as it is, without the momentum of earlier steps.

    Args:
        job: what is trained; config: its configuration.
        context: this rank.
    """

    monitor_prefix = MONITOR_PREFIX

    def __init__(self, job: TrainJob, config: HierVLTrainConfig, context: RankContext) -> None:
        self.job, self.config, self.context = job, config, context
        schedule = config.model.schedule
        self.gradient_cycle = schedule.child_steps + 1 if schedule.kind == "alternate" else 1
        self.partial_passes = schedule.kind in ("alternate", "sum") and config.model.aggregator.kind != "average"
        manifest = job.open_manifest()
        levels = read_levels(storage.join(config.output_uri, LEVELS_FILE))
        texts = read_text_table(str(job.text_uri))
        self.train, self.dev = (
            LevelReader(FeatureReader(SampleTable.of(manifest, split), config.stream), levels, texts, config.sampling)
            for split in ("train", "dev")
        )

    def build_model(self) -> HierVL:
        """Return the model with new weights."""
        return build_model(self.config.model, self.config.text, sum(self.job.d_in), self.job.d_text or 0)

    def initialise(self, model: HierVL) -> None:
        """Take the weights of a child-only training, where the configuration says so."""
        load_child_only(model, self.config.output_uri)

    def stream(self, first_step: int, num_steps: int) -> LevelStream:
        """Return this rank's part of the global batches of every step's levels."""
        plan = LevelStreamPlan(
            schedule=self.config.model.schedule,
            batching=self.config.batching,
            summaries_as_captions=self.config.model.summaries_as_captions,
            seed=self.config.seed,
            rank=self.context.rank,
            world_size=self.context.world_size,
            first_step=first_step,
            num_steps=num_steps,
            read_threads=self.config.stream.read_threads,
        )
        return LevelStream(self.train, plan)

    def passes(self, model: nn.Module, batch: LevelBatches, step: int) -> Iterator[Pass]:
        """Run one forward pass for each level of the step."""
        for part in batch.parts:
            with autocast(self.context.device, self.config.precision):
                result = run_pass(model, part, self.config.model)
            yield result

    def progress(self, step: int) -> dict[str, float]:
        """Return the epoch, and how many steps of each level are done."""
        schedule = self.config.model.schedule
        return {
            "epoch": step / self.job.steps_per_epoch,
            "child/steps": float(schedule.batches_before(step, "child")),
            "parent/steps": float(schedule.batches_before(step, "parent")),
        }

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return retrieval, multiple choice and collapse monitors on the dev split."""
        return validate(model, self.dev, self.context.device, self.config.precision)

    def score(self, dev: Mapping[str, float]) -> float | None:
        """Return the accuracy of SummaryMCQ, or the recall of videos by their summaries."""
        return dev.get(SUMMARY_MCQ if self.config.best_metric == "summary_mcq" else RECALL)
