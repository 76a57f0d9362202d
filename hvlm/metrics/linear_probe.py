"""Linear probe: logistic regression on frozen features, its strength of regularisation chosen on a held-out part.

The fit is full-batch L-BFGS in float64 from zero weights, so it is deterministic and has one optimum.
Shapes: N rows, D width, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hvlm.config import Config, require

Kind = Literal["multinomial", "one_vs_rest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig(Config):
    """How a linear probe is fitted; the same values serve every kind of feature that stands in one table."""

    l2_grid: tuple[float, ...] = field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    max_iterations: int = 200

    def __post_init__(self) -> None:
        require(
            len(self.l2_grid) > 0 and all(value > 0 for value in self.l2_grid),
            what="probe.l2_grid",
            got=self.l2_grid,
            expected="one or more values above 0",
            do="set e.g. l2_grid: [0.001, 0.01, 0.1]",
        )
        require(
            self.max_iterations > 0,
            what="probe.max_iterations",
            got=self.max_iterations,
            expected="above 0",
            do="set e.g. 200",
        )


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe: standardise with the training rows' mean and deviation, then one linear layer."""

    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]
    weight_CD: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    kind: Kind
    l2: float

    def logits(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N, C) logits.

        Raises:
            ValueError: the rows have another width than the training rows.
        """
        if features_ND.ndim != 2 or features_ND.shape[1] != len(self.mean_D):
            raise ValueError(f"the probe was fitted on width {len(self.mean_D)}, got rows {features_ND.shape}")
        standard_ND = (np.asarray(features_ND, dtype=np.float64) - self.mean_D) / self.std_D
        return np.asarray(standard_ND @ self.weight_CD.T + self.bias_C, dtype=np.float64)

    def probabilities(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N, C) probabilities: softmax when multinomial, one sigmoid per class otherwise."""
        logits = torch.from_numpy(self.logits(features_ND))
        values = logits.softmax(dim=1) if self.kind == "multinomial" else logits.sigmoid()
        return np.asarray(values.numpy(), dtype=np.float64)


def fit_linear_probe(
    features_ND: NDArray[np.floating],
    targets: NDArray[np.generic],
    *,
    num_classes: int,
    l2: float,
    kind: Kind,
    max_iterations: int = 200,
) -> LinearProbe:
    """Return the probe that minimises mean cross-entropy + l2/2 * |W|^2 (the bias is free).

    Args:
        features_ND: training rows.
        targets: (N,) class numbers when `kind` is multinomial, (N, C) bool when one_vs_rest (cross-entropy summed over
            classes).
        num_classes: C.
        l2: weight of the penalty; scikit-learn's `C` is 1 / (l2 * N).
        kind: multinomial for rows with one label each, one_vs_rest for rows with several or none.
        max_iterations: limit of L-BFGS steps.

    Raises:
        ValueError: no rows, or shapes that do not belong together.
    """
    if len(features_ND) == 0 or features_ND.ndim != 2 or len(features_ND) != len(targets):
        raise ValueError(f"a probe needs rows: features {features_ND.shape}, targets {targets.shape}")
    if kind == "one_vs_rest" and targets.shape != (len(features_ND), num_classes):
        raise ValueError(f"one_vs_rest needs (N, {num_classes}) bool targets, got {targets.shape}")
    x_ND = torch.from_numpy(np.asarray(features_ND, dtype=np.float64))
    mean_D, std_D = x_ND.mean(dim=0), x_ND.std(dim=0, correction=0)
    std_D = torch.where(
        std_D > 1e-9, std_D, torch.ones_like(std_D)
    )  # a constant channel carries nothing: its weight stays 0
    x_ND = (x_ND - mean_D) / std_D
    target = torch.from_numpy(np.asarray(targets, dtype=np.int64 if kind == "multinomial" else np.float64))
    weight_CD, bias_C = _minimise(x_ND, target, (num_classes, l2, max_iterations))
    return LinearProbe(mean_D.numpy(), std_D.numpy(), weight_CD.numpy(), bias_C.numpy(), kind, l2)


def _minimise(x_ND: Tensor, target: Tensor, problem: tuple[int, float, int]) -> tuple[Tensor, Tensor]:
    num_classes, l2, max_iterations = problem
    weight_CD = torch.zeros(num_classes, x_ND.shape[1], dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_CD, bias_C],
        max_iter=max_iterations,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits_NC = x_ND @ weight_CD.T + bias_C
        if target.ndim == 1:
            loss = functional.cross_entropy(logits_NC, target)
        else:
            loss = functional.binary_cross_entropy_with_logits(logits_NC, target, reduction="sum") / len(x_ND)
        loss = loss + 0.5 * l2 * weight_CD.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight_CD.detach(), bias_C.detach()


def choose_probe(
    fit: Callable[[float], LinearProbe], dev_score: Callable[[LinearProbe], float], l2_grid: Sequence[float]
) -> tuple[LinearProbe, dict[float, float]]:
    """Return the probe with the best dev score and every value's score; ties and NaN go to the stronger penalty."""
    scored: list[tuple[LinearProbe, float]] = []
    for l2 in sorted(l2_grid, reverse=True):
        probe = fit(l2)
        scored.append((probe, dev_score(probe)))
    best = max(range(len(scored)), key=lambda i: (-np.inf if np.isnan(scored[i][1]) else scored[i][1], -i))
    return scored[best][0], {probe.l2: score for probe, score in scored}
