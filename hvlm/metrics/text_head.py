"""A small head between frozen clips and frozen texts: one residual linear layer on the clip's side.

Shapes: N clips, C texts (classes), E width of their space.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.metrics.classification import unit_rows

TEMPERATURE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHeadConfig(Config):
    """How the head is fitted: `num_steps` of AdamW on `batch_size` clips; the same for all kinds of features."""

    num_steps: int = 500
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("num_steps", 1), ("batch_size", 1), ("lr", 0.0), ("weight_decay", 0.0)):
            value = getattr(self, name)
            require(value >= least, what=f"head.{name}", got=value, expected=f"{least} or more", do=f"raise {name}")


@dataclass(frozen=True, slots=True)
class TextHead:
    """A fitted head: x + W x of unit clips, compared with unit texts by cosine."""

    weight_EE: NDArray[np.float64]

    def scores(self, clip_NE: NDArray[np.floating], text_CE: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N, C) cosines; both sides need not be normalised."""
        unit_NE = unit_rows(clip_NE)
        return np.asarray(unit_rows(unit_NE + unit_NE @ self.weight_EE.T) @ unit_rows(text_CE).T, dtype=np.float64)


def fit_text_head(
    clip_NE: NDArray[np.floating],
    text_CE: NDArray[np.floating],
    label_N: NDArray[np.int64],
    config: TextHeadConfig,
    seed: int,
) -> TextHead:
    """Return the head that minimises the cross-entropy of each clip's class among all texts, at temperature 0.05.

    Args:
        clip_NE: frozen clips. text_CE: frozen texts.
        label_N: number of each clip's text.
        config: of the fit.
        seed: of the batches; the layer starts from zero, which is the score without a head.

    Raises:
        ValueError: no clips, or shapes that do not belong together.
    """
    if len(clip_NE) == 0 or len(clip_NE) != len(label_N) or clip_NE.shape[1] != text_CE.shape[1]:
        raise ValueError(f"a head needs clips {clip_NE.shape}, labels {label_N.shape} and texts {text_CE.shape}")
    x_NE, texts_CE = torch.from_numpy(unit_rows(clip_NE)), torch.from_numpy(unit_rows(text_CE))
    label = torch.from_numpy(label_N)
    weight_EE = torch.zeros(x_NE.shape[1], x_NE.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([weight_EE], lr=config.lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.num_steps):
        batch = torch.randint(len(x_NE), (min(config.batch_size, len(x_NE)),), generator=generator)
        moved = functional.normalize(x_NE[batch] + x_NE[batch] @ weight_EE.T, dim=1)
        optimizer.zero_grad()
        functional.cross_entropy(moved @ texts_CE.T / TEMPERATURE, label[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return TextHead(weight_EE.detach().numpy())
