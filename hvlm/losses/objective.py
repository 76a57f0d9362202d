"""The training objective: a weighted sum of the losses, with the two presets of the specification.

`upstream_literal` is the published loss on the model's outputs. It collapses, by construction, in three ways: growing
norms satisfy its hinge (scale), one direction does (rank 1), differences between videos alone do (constant videos).
`sound` closes each: variance, within-video variance and covariance of unit vectors, and temporal InfoNCE.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hvlm.config import Config, require
from hvlm.errors import UserError
from hvlm.losses.batch import GatheredBatch
from hvlm.losses.contrastive import InfoNCEConfig, temporal_infonce
from hvlm.losses.cross_scale import cross_scale_loss
from hvlm.losses.temporal import Reduction, temporal_loss
from hvlm.losses.text_alignment import text_alignment_loss
from hvlm.losses.variance import (
    covariance_loss,
    upstream_variance_loss,
    variance_loss,
    within_video_variance_loss,
)
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveWeights(Config):
    """Weight of each loss; 0 leaves the loss out of the graph."""

    temporal: float = 0.0
    variance: float = 0.0
    within_video: float = 0.0
    covariance: float = 0.0
    infonce: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temporal", "variance", "within_video", "covariance", "infonce"):
            value = getattr(self, name)
            require(value >= 0, what=f"objective.weights.{name}", got=value, expected="0 or more", do="use 0 for off")


PRESET_WEIGHTS = {
    "upstream_literal": ObjectiveWeights(temporal=1.0, variance=0.1),
    "sound": ObjectiveWeights(temporal=1.0, variance=1.0, within_video=0.25, covariance=0.04, infonce=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig(Config):
    """`weights` null takes those of the preset; the preset also says which variance loss is meant.

    `cross_scale` (0.1 is usual) and `text` (1.0) are 0 when off. `boundary_quantile` > 0 gives likely boundaries
    (`boundary_pair_weights`) the weight `boundary_weight` in the temporal loss.
    """

    preset: Literal["sound", "upstream_literal"] = "sound"
    weights: ObjectiveWeights | None = None
    reduction: Reduction = "pair_mean"
    variance_gamma: float = 1.0
    within_video_gamma: float = 0.5
    upstream_tau: float = 0.1
    infonce: InfoNCEConfig = field(default_factory=InfoNCEConfig)
    cross_scale: float = 0.0
    text: float = 0.0
    boundary_quantile: float = 0.0
    boundary_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cross_scale", "text"):
            value = getattr(self, name)
            require(value >= 0, what=f"objective.{name}", got=value, expected="0 or more", do="use 0 for off")
        for name in ("boundary_quantile", "boundary_weight"):
            value = getattr(self, name)
            require(0 <= value <= 1, what=f"objective.{name}", got=value, expected="0 to 1", do="use 0 for off")
        require(
            sum(self.all_weights().values()) > 0,
            what="objective.weights",
            got="all 0",
            expected="at least one loss",
            do="use preset: sound",
        )

    def all_weights(self) -> dict[str, float]:
        """Weight of every loss by name."""
        weights = self.weights or PRESET_WEIGHTS[self.preset]
        return {
            "temporal": weights.temporal,
            "variance": weights.variance,
            "within_video": weights.within_video,
            "covariance": weights.covariance,
            "infonce": weights.infonce,
            "cross_scale": self.cross_scale,
            "text": self.text,
        }


class Objective:
    """Calculates the losses of a global batch.

    Args:
        config: preset and weights.
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config
        self.weights = config.all_weights()

    def __call__(self, batch: GatheredBatch, *, seed: int, logit_scale: Tensor | None = None) -> dict[str, Tensor]:
        """Losses with a weight above 0 by name, unweighted, and their weighted sum `total`.

        Args:
            batch: tensors of all ranks.
            seed: of the anchors; the same on all ranks, another one each step.
            logit_scale: needed for the text loss (`Output.logit_scale`).

        Raises:
            UserError: a loss has a weight but the batch lacks what it needs.
        """
        losses = self._frame_losses(batch, seed)
        if self.weights["cross_scale"] > 0:
            _need(len(batch.levels) > 0, "objective.cross_scale", "set model.cross_scale: true")
            losses["cross_scale"] = cross_scale_loss(batch.levels, _generator(seed, stream=2))
        if self.weights["text"] > 0:
            if batch.video_NE is None or batch.text_NE is None or batch.text_group_N is None or logit_scale is None:
                raise _missing("objective.text", "set model.alignment.enabled: true and give the store captions")
            losses["text"] = text_alignment_loss(batch.video_NE, batch.text_NE, batch.text_group_N, logit_scale)
        weighted = [self.weights[name] * loss for name, loss in losses.items()]
        return {"total": torch.stack(weighted).sum(), **losses}

    def _frame_losses(self, batch: GatheredBatch, seed: int) -> dict[str, Tensor]:
        cfg, weights = self.config, self.weights
        z_NTZ, mask_NT = batch.projected_NTZ, batch.mask_NT
        losses: dict[str, Tensor] = {}
        if weights["temporal"] > 0:
            losses["temporal"] = temporal_loss(z_NTZ, mask_NT, cfg.reduction, batch.pair_weight_NT)
        if weights["variance"] > 0:
            literal = cfg.preset == "upstream_literal"
            losses["variance"] = (
                upstream_variance_loss(z_NTZ, mask_NT, cfg.upstream_tau)
                if literal
                else variance_loss(z_NTZ, mask_NT, cfg.variance_gamma)
            )
        if weights["within_video"] > 0:
            losses["within_video"] = within_video_variance_loss(z_NTZ, mask_NT, cfg.within_video_gamma)
        if weights["covariance"] > 0:
            losses["covariance"] = covariance_loss(z_NTZ, mask_NT)
        if weights["infonce"] > 0:
            losses["infonce"] = temporal_infonce(z_NTZ, mask_NT, cfg.infonce, _generator(seed, stream=1))
        return losses

    def unused_parts(self) -> list[str]:
        """Parts of `HierarchicalVLM` that no active loss reaches; `freeze` them, or DDP waits for their gradients."""
        weights = self.weights
        unused = ["classifier"]
        if weights["text"] == 0:
            unused.append("alignment")
        if weights["cross_scale"] == 0:
            unused.append("predictor")
        if weights["text"] == 0 and weights["cross_scale"] == 0:
            unused.append("pyramid")
        if all(weights[name] == 0 for name in weights if name != "text"):
            unused.append("projector")
        return unused


def check_objective(model: HierarchicalVLMConfig, objective: ObjectiveConfig) -> None:
    """Refuse an objective that needs a part which the model does not have.

    Raises:
        UserError: `upstream_literal` with a projector, a frame classifier, text loss without alignment, cross-scale
            loss without predictor.
    """
    require(
        objective.preset != "upstream_literal" or model.projector.kind != "mlp",
        what="model.projector.kind",
        got=model.projector.kind,
        expected="identity or linear with objective.preset: upstream_literal (it has no projector)",
        do="set model.projector.kind: linear",
    )
    require(
        model.num_classes == 0,
        what="model.num_classes",
        got=model.num_classes,
        expected="0: no loss of a training reaches a frame classifier",
        do="leave it out; jobs.evaluate fits its probes on the trained features",
    )
    _need(objective.text == 0 or model.alignment.enabled, "objective.text", "set model.alignment.enabled: true")
    _need(objective.cross_scale == 0 or model.cross_scale, "objective.cross_scale", "set model.cross_scale: true")


def _generator(seed: int, *, stream: int) -> torch.Generator:
    # One stream per loss: switching one loss on does not change the anchors of another.
    return torch.Generator().manual_seed((seed * 1_000_003 + stream) % (2**63))


def _need(condition: bool, what: str, do: str) -> None:
    if not condition:
        raise _missing(what, do)


def _missing(what: str, do: str) -> UserError:
    return UserError(what=what, got="above 0, but the model or batch lacks its part", expected="both or 0", do=do)
