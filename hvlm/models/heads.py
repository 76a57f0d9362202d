"""Heads of HierarchicalVLM: projector for the losses, frame classifier, video and text projections.

Shapes: B local batch, T frames, D width of the encoder, E width of the joint space, X width of the text features,
C classes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorConfig(Config):
    """`mlp`: Linear D→D, LayerNorm, GELU, Linear D→dim. `identity`: the losses act on the hidden rows themselves.

    `linear`: Linear D→dim, the published code's output layer, whose free scale is what defeats its variance hinge.
    """

    kind: Literal["mlp", "linear", "identity"] = "mlp"
    dim: int = 256

    def __post_init__(self) -> None:
        require(self.dim >= 2, what="projector.dim", got=self.dim, expected="2 or more", do="e.g. dim: 256")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentConfig(Config):
    """Video and text projections into the joint space. `init_temperature` 0.05 is a logit scale of 20."""

    enabled: bool = True
    dim: int = 256
    projection: Literal["linear", "mlp"] = "linear"
    init_temperature: float = 0.05
    max_logit_scale: float = 100.0

    def __post_init__(self) -> None:
        require(self.dim >= 2, what="alignment.dim", got=self.dim, expected="2 or more", do="e.g. dim: 256")
        require(
            self.max_logit_scale > 0,
            what="alignment.max_logit_scale",
            got=self.max_logit_scale,
            expected="above 0",
            do="e.g. max_logit_scale: 100",
        )
        require(
            1.0 / self.max_logit_scale <= self.init_temperature,
            what="alignment.init_temperature",
            got=self.init_temperature,
            expected=f"at least 1 / max_logit_scale = {1.0 / self.max_logit_scale}",
            do="e.g. init_temperature: 0.05",
        )


def build_projector(config: ProjectorConfig, d_model: int) -> nn.Module:
    """The module g of z = g(h) on which the losses act; downstream tasks use h."""
    if config.kind == "identity":
        return nn.Identity()
    if config.kind == "linear":
        return nn.Linear(d_model, config.dim)
    return nn.Sequential(nn.Linear(d_model, d_model), nn.LayerNorm(d_model), nn.GELU(), nn.Linear(d_model, config.dim))


class FrameClassifier(nn.Module):
    """Dropout → Linear: one logit per class and row (the LayerNorm before it is the encoder's last layer)."""

    def __init__(self, d_model: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(d_model, num_classes)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) → logits (B, T, C)."""
        logits_BTC: Tensor = self.linear(self.dropout(hidden_BTD))
        return logits_BTC


class AlignmentHeads(nn.Module):
    """Unit-norm video and text embeddings and the learnable logit scale.

    Args:
        config: width and temperature.
        d_model: width of the pyramid's top node.
        d_text: width of the text tower's pooled output.

    Source: Radford et al. 2021 (CLIP): learnable scale, at most 100.
    """

    def __init__(self, config: AlignmentConfig, d_model: int, d_text: int) -> None:
        super().__init__()
        self.config = config
        self.video = _projection(config.projection, d_model, config.dim)
        self.text = _projection(config.projection, d_text, config.dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / config.init_temperature)))

    def embed_video(self, top_BD: Tensor) -> Tensor:
        """Top nodes → unit vectors (B, E), float32."""
        return functional.normalize(self.video(top_BD).float(), dim=-1)

    def embed_text(self, text_BX: Tensor) -> Tensor:
        """Pooled text features → unit vectors (B, E), float32. The length of a text vector does not matter."""
        unit_BX = functional.normalize(text_BX.to(self.log_scale.dtype), dim=-1)
        return functional.normalize(self.text(unit_BX).float(), dim=-1)

    def logit_scale(self) -> Tensor:
        """exp of the parameter, which is held at or below log(max_logit_scale) in place: a clamp inside the graph would
        stop its gradient for good once it is beyond."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.config.max_logit_scale))
        return self.log_scale.exp()


def _projection(kind: str, d_in: int, d_out: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(d_in, d_out)
    return nn.Sequential(nn.Linear(d_in, d_in), nn.GELU(), nn.Linear(d_in, d_out))
