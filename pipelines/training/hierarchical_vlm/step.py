"""One forward pass of HierarchicalVLM and its losses, the same for training (gathered over ranks) and for validation
(one rank's own batch)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvlm.data.collate import Batch
from hvlm.losses.batch import GatheredBatch
from hvlm.losses.objective import Objective
from hvlm.losses.temporal import boundary_pair_weights
from hvlm.models.hierarchical_vlm import Output
from pipelines.training.gather import gather_batch, local_batch


@dataclass(frozen=True, slots=True)
class StepResult:
    """Losses by name with `total`, the model's output for this rank's rows, and the losses' input in float32."""

    losses: dict[str, Tensor]
    output: Output
    batch: GatheredBatch


def run_step(model: nn.Module, objective: Objective, batch: Batch, *, seed: int, gather: bool) -> StepResult:
    """Return the losses of a batch.

    Args:
        model: `HierarchicalVLM`, or its DDP wrapper.
        objective: which losses.
        batch: this rank's rows, on the model's device.
        seed: of sampled anchors; the same on all ranks.
        gather: put the rows of all ranks together first. All ranks must call at the same time then.
    """
    output: Output = model(batch.features_BTI, batch.times_BT, batch.mask_BT, batch.text_BX)
    config = objective.config
    weights = None
    if config.boundary_quantile > 0:
        weights = boundary_pair_weights(
            batch.features_BTI, batch.mask_BT, config.boundary_quantile, config.boundary_weight
        )
    local = local_batch(output, batch.mask_BT, batch.text_group_B, weights)
    # Gathered as it comes (bfloat16 is half the traffic), compared in float32: in bfloat16 a similarity has 3 digits
    # and a variance of unit vectors none.
    together = _float32(gather_batch(local) if gather else local)
    with torch.autocast(batch.mask_BT.device.type, enabled=False):
        losses = objective(together, seed=seed, logit_scale=output.logit_scale)
    return StepResult(losses, output, together)


def _float32(batch: GatheredBatch) -> GatheredBatch:
    def cast(x: Tensor | None) -> Tensor | None:
        return x.float() if x is not None and x.is_floating_point() else x

    return batch._replace(
        projected_NTZ=batch.projected_NTZ.float(),
        pair_weight_NT=cast(batch.pair_weight_NT),
        video_NE=cast(batch.video_NE),
        text_NE=cast(batch.text_NE),
        levels=tuple(
            level._replace(projected_NLZ=level.projected_NLZ.float(), predicted_NLZ=level.predicted_NLZ.float())
            for level in batch.levels
        ),
    )
