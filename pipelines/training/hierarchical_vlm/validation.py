"""Validation of HierarchicalVLM on the dev split: every sample once, whatever the number of workers.

Batches are cut from the whole split and dealt to the ranks; a batch's losses and monitors come from that batch alone.
So the result on 3 workers is that on 1, and no sample is doubled to fill a last batch. All ranks return the same
numbers.

Shapes: N videos of the split, E joint space.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from hvlm.data.batching import BatchingConfig, BatchPlan, plan_evaluation
from hvlm.data.collate import Batch
from hvlm.losses.monitors import collapse_monitors
from hvlm.losses.objective import Objective
from pipelines.training.hierarchical_vlm.step import run_step
from pipelines.training.hierarchical_vlm.stream import read_batch
from pipelines.training.retrieval import retrieval_figures
from pipelines.training.step import autocast, mix_seed
from pipelines.training.stream import FeatureReader
from pipelines.training.text import TextTable

MONITOR_PREFIX = "dev/hidden/"
RECALL = "dev/video/text_to_video/recall_at_1"
CONTRAST_GAP = MONITOR_PREFIX + "contrast_gap"
_SEED = 1  # anchors of the contrastive losses: the same ones at every validation


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationData:
    """The dev split and how it is cut."""

    reader: FeatureReader
    texts: TextTable | None
    batching: BatchingConfig


Embeddings = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Of the videos (N, E), of their texts (N, E), and the number of each text, for retrieval."""

Measured = tuple[dict[str, float], Embeddings | None]
"""What one batch gives: figures by their name, and embeddings where there are texts."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one batch gave, with its weight in videos."""

    number: int
    num_videos: int
    figures: dict[str, float]
    embeddings: Embeddings | None


def validate(
    model: nn.Module, objective: Objective, data: ValidationData, device: torch.device, precision: str
) -> dict[str, float]:
    """Return the dev metrics by name; empty when the split has no sample. All ranks must call it together.

    `dev/loss/*` and `dev/hidden/*` (collapse monitors of the encoder's rows) are measured batch by batch and averaged,
    weighted by videos: they compare only between trainings with equal `batching`. Recall is over the whole split, a
    query's right answers being all videos with an equal text.
    """

    def measure(batch: Batch, number: int) -> Measured:
        with autocast(device, precision):
            result = run_step(model, objective, batch, seed=mix_seed(_SEED, number), gather=False)
        figures = {f"dev/loss/{name}": float(loss) for name, loss in result.losses.items()}
        figures |= collapse_monitors(result.output.hidden_BTD, batch.mask_BT, prefix=MONITOR_PREFIX)
        if result.output.text_BE is None or batch.text_group_B is None:
            return figures, None
        video, text = (x.float().cpu().numpy() for x in (result.output.video_BE, result.output.text_BE))
        return figures, (video, text, batch.text_group_B.cpu().numpy())

    return validate_batches(model, data, device, measure)


def validate_batches(
    model: nn.Module, data: ValidationData, device: torch.device, measure: Callable[[Batch, int], Measured]
) -> dict[str, float]:
    """Return what `measure` makes of the dev split's batches; empty when it has none. All ranks must call it together.

    Args:
        model: is in evaluation mode, without gradients, while `measure` runs.
        data: the dev split.
        device: where the batches go.
        measure: of a batch and its number.
    """
    if len(data.reader.table) == 0:
        return {}
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    plans = plan_evaluation(data.reader.table.index, data.batching)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            mine = [
                _Part(number, len(plans[number].samples), *measure(_read(data, plans[number]).to(device), number))
                for number in range(rank, len(plans), world_size)
            ]
    finally:
        model.train(was_training)
    gathered: list[list[_Part]] = [mine]
    if world_size > 1:
        gathered = [[] for _ in range(world_size)]
        dist.all_gather_object(gathered, mine)
    # In the order of the batches, so that the sums are rounded alike for any number of ranks.
    parts = sorted((part for each in gathered for part in each), key=lambda part: part.number)
    return _mean_figures(parts) | _retrieval(parts)


def _read(data: ValidationData, plan: BatchPlan) -> Batch:
    keys = data.reader.table.index.keys
    rows = None if data.texts is None else [data.texts.row(keys[int(i)], 0) for i in plan.samples]
    return read_batch(data.reader, plan, rows)


def _mean_figures(parts: Iterable[_Part]) -> dict[str, float]:
    """Mean over videos; a batch in which a figure does not exist (no pair) does not count for it, a bad loss does."""
    totals: dict[str, tuple[float, int]] = {}
    for part in parts:
        for name, value in part.figures.items():
            total, count = totals.get(name, (0.0, 0))
            if math.isfinite(value) or name.startswith("dev/loss/"):
                totals[name] = total + value * part.num_videos, count + part.num_videos
            else:
                totals[name] = total, count
    return {name: total / count if count else math.nan for name, (total, count) in totals.items()}


def _retrieval(parts: list[_Part]) -> dict[str, float]:
    embeddings = [part.embeddings for part in parts if part.embeddings is not None]
    if len(embeddings) < len(parts):
        return {}
    video, text, group = (np.concatenate(each) for each in zip(*embeddings, strict=True))
    return retrieval_figures("dev/video", video, text, group)
