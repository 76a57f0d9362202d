"""Configuration of `jobs.train`: what the systems share."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config, require
from hvlm.encoders.config import ClipConfig
from hvlm.losses.monitors import AlarmConfig
from infra.cluster import ClusterConfig
from infra.tracking import TrackingConfig

WITHOUT_TEXT = "train without text: model.alignment.enabled=false objective.text=0"
"""What to do where there is no text: both overrides, as each alone is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig(Config):
    """How the features are read.

    Args:
        l2_normalise: divide each encoder's rows by their norm at read (the model's `input_norm` is the usual place).
        prefetch_batches: batches that are read ahead, per reading process.
        num_processes: reading processes per worker; 0 reads in a thread, which suits small models and few cores.
        cache_mib: memory per reading process for decoded videos; a set that fits is read from storage once.
        read_threads: concurrent reads; more than 1 pays off on object stores.
    """

    l2_normalise: bool = False
    prefetch_batches: int = 4
    num_processes: int = 0
    cache_mib: int = 256
    read_threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("prefetch_batches", 1), ("num_processes", 0), ("cache_mib", 0), ("read_threads", 1)):
            value = getattr(self, name)
            require(value >= least, what=f"stream.{name}", got=value, expected=f"{least} or more", do=f"raise {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTextConfig(Config):
    """Text features that jobs.import_features brought along. `extractor`: as its format.text_extractor says."""

    kind: Literal["imported"] = "imported"
    extractor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig(Config):
    """Where the texts of the alignment come from.

    A video's texts are its summary, else the summaries of its parts, else its captions, else every template with each
    of its labels. An epoch uses one of them. `encoder`: the CLIP model whose image tower made a column of the store;
    its text tower encodes them. Or the text features that were imported with a column.
    """

    encoder: ClipConfig | ImportedTextConfig | None = None
    templates: tuple[str, ...] = ("a video of {label}", "a video of a person doing {label}")

    def __post_init__(self) -> None:
        for template in self.templates:
            require(
                "{label}" in template,
                what="text.templates",
                got=f"'{template}'",
                expected="{label} in it",
                do="write e.g. 'a video of {label}'",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig(Config):
    """AdamW; the learning rate warms up linearly and falls along a cosine to `min_lr`, set before every step.

    `accumulate_steps`: every worker takes its part of a global batch in so many equal parts, one after another, and the
    optimizer steps once, on the mean of their gradients: as much less memory, the same batches, epochs and number of
    steps. A mean over samples has the gradient of the undivided batch. Losses that compare samples (text alignment,
    InfoNCE, variance, EgoNCE) compare those of one part over all workers alone: contrastive ones have as many fewer
    negatives, so this is no way to a larger contrastive batch.
    """

    lr: float = 1e-4
    min_lr: float = 1e-6
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    warmup_epochs: float = 1.0
    accumulate_steps: int = 1

    def __post_init__(self) -> None:
        require(
            self.accumulate_steps >= 1,
            what="optimizer.accumulate_steps",
            got=self.accumulate_steps,
            expected="1 or more",
            do="leave it out, or set e.g. 2",
        )
        require(
            0 < self.min_lr <= self.lr,
            what="optimizer.lr",
            got=f"{self.lr} with min_lr {self.min_lr}",
            expected="0 < min_lr <= lr",
            do="set e.g. lr: 1e-4, min_lr: 1e-6",
        )
        for name in ("weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            require(value >= 0, what=f"optimizer.{name}", got=value, expected="0 or more", do=f"raise {name}")
        require(
            self.clip_norm > 0, what="optimizer.clip_norm", got=self.clip_norm, expected="above 0", do="set e.g. 1.0"
        )
        require(
            all(0 <= beta < 1 for beta in self.betas),
            what="optimizer.betas",
            got=self.betas,
            expected="two numbers in [0, 1)",
            do="set e.g. [0.9, 0.999]",
        )


Selection = Literal["auto", "text_to_video", "contrast_gap", "summary_mcq", "label_hit_at_1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig(Config):
    """When the dev split is measured and a checkpoint is written: every `every_steps`, and after the last step.

    `keep_last` checkpoints stay, and the best one. `best_by`: text_to_video recall_at_1, or the contrast gap of the
    encoder's rows; auto is the former where text is trained on. HierVL has summary_mcq (auto) and text_to_video, a
    supervised baseline label_hit_at_1 (auto) and contrast_gap. Never a raw loss: a collapsed model has the lowest.
    """

    every_steps: int = 200
    keep_last: int = 2
    best_by: Selection = "auto"

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep_last"):
            value = getattr(self, name)
            require(value >= 1, what=f"checkpoint.{name}", got=value, expected="1 or more", do=f"raise {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResources(Config):
    """What the training asks of the cluster.

    Args:
        num_workers: a number, or (least, most): then Ray starts with what is there and grows when nodes join. The
            global batch must be a multiple of every number in the range; the batches do not depend on it.
        use_gpu: one GPU per worker; null: if the cluster has any.
        cpus_per_worker: logical CPUs, for the worker and its reading.
        threads_per_worker: CPU threads of PyTorch; null leaves PyTorch's choice on a GPU and is one per logical CPU
            without.
        max_failures: restarts of the workers from the last checkpoint before the job fails.
    """

    num_workers: int | tuple[int, int] = 1
    use_gpu: bool | None = None
    cpus_per_worker: float = 1.0
    threads_per_worker: int | None = None
    max_failures: int = 3

    def __post_init__(self) -> None:
        least, most = self.worker_range
        require(
            1 <= least <= most,
            what="resources.num_workers",
            got=self.num_workers,
            expected="1 or more, or [least, most]",
            do="set e.g. num_workers: 2",
        )
        require(
            self.cpus_per_worker > 0,
            what="resources.cpus_per_worker",
            got=self.cpus_per_worker,
            expected="above 0",
            do="set e.g. 1",
        )
        require(
            self.threads_per_worker is None or self.threads_per_worker >= 1,
            what="resources.threads_per_worker",
            got=self.threads_per_worker,
            expected="1 or more",
            do="leave it out, or set e.g. 1",
        )
        require(
            self.max_failures >= 0,
            what="resources.max_failures",
            got=self.max_failures,
            expected="0 or more",
            do="set e.g. 3",
        )

    @property
    def worker_range(self) -> tuple[int, int]:
        """(least, most) workers."""
        return (self.num_workers, self.num_workers) if isinstance(self.num_workers, int) else self.num_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Config):
    """What every training has; each system adds its model, losses and batches (`registry.TRAIN_CONFIG`).

    Args:
        system: which model is trained, and how.
        store_uri: the feature store. store_version: of its samples; null pins the newest at the first start.
        output_uri: checkpoints and the run's id go here; the same config with the same output_uri continues.
        encoders: columns of the store to read, side by side on the first one's time grid; empty: all.
        epochs: over the train split; max_steps cuts the training (and its learning-rate curve) to fewer steps.
        precision: of the forward pass on a GPU; a CPU always uses float32.
        log_every_steps: how often the training metrics go to MLflow.
    """

    # A continued training must mean the same thing; where it computes, logs and keeps checkpoints may change.
    FIXED: ClassVar[tuple[str, ...]] = ("system", "seed", "epochs", "max_steps", "precision", "optimizer")

    system: str
    store_uri: str
    output_uri: str
    store_version: int | None = None
    encoders: tuple[str, ...] = ()
    seed: int = 0
    epochs: int = 50
    max_steps: int | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    log_every_steps: int = 10
    stream: StreamConfig = field(default_factory=StreamConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    resources: TrainResources = field(default_factory=TrainResources)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every_steps"):
            value = getattr(self, name)
            require(value >= 1, what=name, got=value, expected="1 or more", do=f"raise {name}")
        require(
            self.max_steps is None or self.max_steps >= 1,
            what="max_steps",
            got=self.max_steps,
            expected="1 or more",
            do="leave it out, or raise it",
        )
        require(self.seed >= 0, what="seed", got=self.seed, expected="0 or more", do="set e.g. seed: 0")

    @property
    def best_metric(self) -> Selection:
        """What "best" compares, with `auto` resolved."""
        return self.checkpoint.best_by

    def check_best_by(self, *known: Selection) -> None:
        """Raise unless "best" compares something that the system measures."""
        require(
            self.checkpoint.best_by in ("auto", *known),
            what="checkpoint.best_by",
            got=self.checkpoint.best_by,
            expected=" or ".join(known),
            do="choose one, or leave it out",
        )

    def check_workers(self, name: str, size: int) -> None:
        """Raise unless every number of workers in the range, each with `optimizer.accumulate_steps` equal parts,
        divides a global batch of `size`, which `name` sets."""
        least, most = self.resources.worker_range
        parts = self.optimizer.accumulate_steps
        require(
            size % parts == 0 and size // parts >= min(2, size),
            what=name,
            got=f"{size} with optimizer.accumulate_steps {parts}",
            expected="a multiple of it, with at least 2 samples in each part",
            do="raise the batch, or lower optimizer.accumulate_steps",
        )
        wrong = [count for count in range(least, most + 1) if size % (count * parts)]
        require(
            not wrong,
            what=name,
            got=size,
            expected=f"a multiple of every number of workers from {least} to {most}"
            + (f", times {parts} parts of each" if parts > 1 else ""),
            do=f"change it, or resources.num_workers ({wrong[:1]} does not divide it)",
        )
