"""Differentiable all-gather with the true gradient of the global loss under DDP's mean.

Every rank gathers the same tensors and calculates the same global loss. The gradient of that loss with respect to this
rank's slice is already complete on this rank, so the backward pass communicates nothing; DDP then averages parameter
gradients over the W ranks, hence the factor W:

    1/W sum_r (W dL/dz_r) dz_r/dtheta = dL/dtheta

This holds only while all ranks calculate the same loss: same seed for sampled anchors, no rank-local terms. A parameter
that the loss uses directly (the logit scale) has the full gradient on every rank, and the mean leaves it as it is.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from hvlm.losses.batch import GatheredBatch, LevelNodes
from hvlm.models.hierarchical_vlm import Output


class _AllGather(torch.autograd.Function):
    """Concatenate equal-shaped tensors of all ranks along dimension 0."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return _all_gather(x)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        world = dist.get_world_size()
        rows = gradient.shape[0] // world
        start = dist.get_rank() * rows
        return gradient[start : start + rows] * world


def gather_rows(x: Tensor) -> Tensor:
    """`x` of all ranks, rank 0's rows first; `x` itself without a process group.

    Args:
        x: any dtype; the same shape on all ranks (the stream pads to the global batch's length).
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    if x.requires_grad:
        gathered: Tensor = _AllGather.apply(x)
        return gathered
    return _all_gather(x)


def gather_batch(batch: GatheredBatch) -> GatheredBatch:
    """The global batch from each rank's part; gradients flow back to this rank's part."""

    def optional(x: Tensor | None) -> Tensor | None:
        return None if x is None else gather_rows(x)

    return GatheredBatch(
        projected_NTZ=gather_rows(batch.projected_NTZ),
        mask_NT=gather_rows(batch.mask_NT),
        pair_weight_NT=optional(batch.pair_weight_NT),
        video_NE=optional(batch.video_NE),
        text_NE=optional(batch.text_NE),
        text_group_N=optional(batch.text_group_N),
        levels=tuple(LevelNodes(*(gather_rows(x) for x in level)) for level in batch.levels),
    )


def local_batch(
    output: Output, mask_BT: Tensor, text_group_B: Tensor | None = None, pair_weight_BT: Tensor | None = None
) -> GatheredBatch:
    """This rank's part of the batch from a forward pass, ready for `gather_batch`.

    Args:
        output: of `HierarchicalVLM`.
        mask_BT: bool.
        text_group_B: int64, equal for equal captions **over all ranks** (e.g. the caption's index in the epoch's list),
            −1 without text.
        pair_weight_BT: `boundary_pair_weights`, or None.
    """
    with_text = output.text_BE is not None and text_group_B is not None
    return GatheredBatch(
        projected_NTZ=output.projected_BTZ,
        mask_NT=mask_BT,
        pair_weight_NT=pair_weight_BT,
        video_NE=output.video_BE if with_text else None,
        text_NE=output.text_BE if with_text else None,
        text_group_N=text_group_B if with_text else None,
        levels=tuple(LevelNodes(*level) for level in output.cross_scale),
    )


def _all_gather(x: Tensor) -> Tensor:
    # bool is not a dtype of every backend; uint8 is.
    wire = x.detach().contiguous()
    wire = wire.view(torch.uint8) if wire.dtype == torch.bool else wire
    parts = [torch.empty_like(wire) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, wire)
    gathered = torch.cat(parts)
    return gathered.view(torch.bool) if x.dtype == torch.bool else gathered
