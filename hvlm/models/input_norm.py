"""Normalisation of stored features before the first layer. It has no trainable parameter.

Features of several encoders come concatenated, and their scales differ (CLIP rows have a norm of about 10, C3D rows of
50 or more), so every choice acts on each encoder's columns by themselves.

Shapes: B local batch, T frames, D width of the concatenated features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.errors import UserError

InputNormKind = Literal["none", "l2", "layer", "standard"]


class FeatureStatistics:
    """Running mean and standard deviation per column, in float64 (exact enough for millions of rows).

    Args:
        dim: number of columns D.
    """

    def __init__(self, dim: int) -> None:
        self.num_rows = 0
        self._sum_D = torch.zeros(dim, dtype=torch.float64)
        self._square_D = torch.zeros(dim, dtype=torch.float64)

    def update(self, features_TD: Tensor) -> None:
        """Add the rows of one video (no padding)."""
        rows = features_TD.detach().to("cpu", torch.float64)
        self.num_rows += rows.shape[0]
        self._sum_D += rows.sum(0)
        self._square_D += rows.square().sum(0)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """(mean, std) as float32 (D,). A column that never varies gets std 1, so that it becomes 0 and not NaN."""
        mean_D = self._sum_D / max(1, self.num_rows)
        variance_D = (self._square_D / max(1, self.num_rows) - mean_D.square()).clamp_min(0.0)
        constant_D = variance_D <= 1e-12 * (1.0 + mean_D.square())
        std_D = torch.where(constant_D, torch.ones_like(variance_D), variance_D.sqrt())
        return mean_D.float(), std_D.float()


class InputNorm(nn.Module):
    """`none`; `l2`: unit norm per row and encoder; `layer`: mean 0, variance 1 per row and encoder; `standard`.

    `standard` subtracts each column's mean and divides by its deviation over the training set. They are
    buffers: they travel with the checkpoint, and are set once with `set_statistics`.

    Args:
        kind: one of the four.
        input_dims: width of each encoder's columns, in the order of concatenation.
    """

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, kind: InputNormKind, input_dims: Sequence[int]) -> None:
        super().__init__()
        self.kind = kind
        self.input_dims = tuple(input_dims)
        self.has_statistics = False
        if kind == "standard":
            self.register_buffer("mean_D", torch.full((sum(input_dims),), float("nan")))
            self.register_buffer("std_D", torch.ones(sum(input_dims)))

    def set_statistics(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Store the training set's statistics (`FeatureStatistics.mean_and_std`). Only for `standard`."""
        self.mean_D.copy_(mean_D)
        self.std_D.copy_(std_D)
        self.has_statistics = True

    def forward(self, features_BTD: Tensor) -> Tensor:
        """Normalised features, same shape. Zero rows stay zero under `l2` and `layer`.

        Raises:
            UserError: `standard` without statistics.
        """
        if self.kind == "none":
            return features_BTD
        if self.kind == "standard":
            if not self.has_statistics:
                raise UserError(
                    what="encoder.input_norm",
                    got="standard without statistics",
                    expected="the mean and deviation of the training features",
                    do="call set_statistics before the first step, or load a checkpoint that has them",
                )
            return (features_BTD - self.mean_D) / self.std_D
        parts = torch.split(features_BTD, list(self.input_dims), dim=-1)
        if self.kind == "l2":
            return torch.cat([functional.normalize(part, dim=-1) for part in parts], dim=-1)
        return torch.cat([functional.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.kind == "standard":
            self.has_statistics = bool(torch.isfinite(self.mean_D).all())
