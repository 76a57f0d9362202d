"""The small head of long-term anticipation: one linear layer from the clips that were seen to every future action.

Shapes: N samples, D width of the clips that were seen, side by side, Z future actions, L labels, K sequences.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hvlm.config import Config, require

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnticipationHeadConfig(Config):
    """How the head is fitted: `num_steps` of AdamW on `batch_size` samples; the same for all kinds of features."""

    num_steps: int = 500
    batch_size: int = 64
    lr: float = 1e-2
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "lr"):
            value = getattr(self, name)
            require(value > 0, what=f"head.{name}", got=value, expected="above 0", do=f"raise {name}")
        require(
            self.weight_decay >= 0,
            what="head.weight_decay",
            got=self.weight_decay,
            expected="0 or more",
            do="set e.g. 0.1",
        )


@dataclass(frozen=True, slots=True)
class AnticipationHead:
    """A fitted head: standardise, then one linear layer whose O outputs are Z categoricals over L labels."""

    mean_D: NDArray[np.float32]
    std_D: NDArray[np.float32]
    weight_OD: NDArray[np.float32]
    bias_O: NDArray[np.float32]
    num_labels: int

    def probabilities(self, features_ND: NDArray[np.floating]) -> Floats:
        """Return (N, Z, L)."""
        logits_NO = (features_ND - self.mean_D) / self.std_D @ self.weight_OD.T + self.bias_O
        logits_NZL = torch.from_numpy(logits_NO.reshape(len(features_ND), -1, self.num_labels))
        return np.asarray(logits_NZL.softmax(-1).numpy(), dtype=np.float64)


def fit_anticipation_head(
    features_ND: NDArray[np.floating], label_NZ: Labels, num_labels: int, config: AnticipationHeadConfig, seed: int
) -> AnticipationHead:
    """Return the head that minimises the cross-entropy of all future labels.

    Args:
        features_ND: training samples.
        label_NZ: in [0, num_labels).
        num_labels: L.
        config: of the fit.
        seed: of the batches; the layer starts from zero.

    Raises:
        ValueError: no samples, or shapes that do not belong together.
    """
    if len(features_ND) == 0 or len(features_ND) != len(label_NZ):
        raise ValueError(f"a head needs samples: features {features_ND.shape}, labels {label_NZ.shape}")
    x_ND = torch.from_numpy(np.asarray(features_ND, dtype=np.float32))
    mean_D, std_D = x_ND.mean(0), x_ND.std(0, correction=0)
    std_D = torch.where(std_D > 1e-9, std_D, torch.ones_like(std_D))
    x_ND, label = (x_ND - mean_D) / std_D, torch.from_numpy(label_NZ)
    num_outputs = label_NZ.shape[1] * num_labels
    weight_OD = torch.zeros(num_outputs, x_ND.shape[1], requires_grad=True)
    bias_O = torch.zeros(num_outputs, requires_grad=True)
    optimizer = torch.optim.AdamW([weight_OD, bias_O], lr=config.lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.num_steps):
        batch = torch.randint(len(x_ND), (min(config.batch_size, len(x_ND)),), generator=generator)
        logits = (x_ND[batch] @ weight_OD.T + bias_O).view(-1, num_labels)
        optimizer.zero_grad()
        functional.cross_entropy(logits, label[batch].flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weight, bias = weight_OD.detach().numpy(), bias_O.detach().numpy()
    return AnticipationHead(mean_D.numpy(), std_D.numpy(), weight, bias, num_labels)


def sample_sequences(probability_NZL: Floats, num_sequences: int, seed: int) -> Labels:
    """Return (N, K, Z) labels drawn from the categoricals, each future action on its own."""
    random = np.random.default_rng(seed)
    cumulative_NZL = np.cumsum(probability_NZL, axis=-1)
    drawn = [
        (cumulative_NZL / cumulative_NZL[..., -1:] <= random.random(probability_NZL.shape[:2])[..., None]).sum(-1)
        for _ in range(num_sequences)
    ]
    return np.stack(drawn, axis=1).astype(np.int64)
