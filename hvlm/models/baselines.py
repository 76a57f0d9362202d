"""Other ways to train HierarchicalVLM's backbone: on labels, and by momentum contrast (MoCo-v2-style).

Both hold the backbone as `backbone`, which is what an evaluation reads.

Shapes: B local batch, N batch over ranks, D width of the encoder, C classes, E width of the contrast, Q queue.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.data.crops import Rows
from hvlm.models.hierarchical_vlm import HierarchicalVLM


class VideoClassifier(nn.Module):
    """Dropout → Linear on the video's node.

    For a mean of rows this is the mean of the rows' scores, the consensus of TSN.

    Args:
        backbone: makes the node.
        num_classes: C.
        dropout: before the linear layer.
    """

    def __init__(self, backbone: HierarchicalVLM, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.d_model, num_classes))

    def forward(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Padded videos → logits (B, C) and the encoder's rows (B, T, D)."""
        hidden_BTD, levels = self.backbone.encode(*rows)
        return self.head(levels[-1].nodes_BLD[:, 0]), hidden_BTD


@dataclass(frozen=True, slots=True, kw_only=True)
class MoCoConfig(Config):
    """`momentum` of the key network, `queue_size` past keys as negatives, `temperature`; a view of a video has at least
    the share `min_crop` of its rows."""

    momentum: float = 0.999
    queue_size: int = 4096
    temperature: float = 0.2
    min_crop: float = 0.5

    def __post_init__(self) -> None:
        ranges = {"momentum": 0 <= self.momentum < 1, "min_crop": 0 < self.min_crop <= 1}
        for name, fits in ranges.items():
            require(fits, what=f"moco.{name}", got=getattr(self, name), expected="0 to 1", do="e.g. 0.5")
        require(self.queue_size >= 1, what="moco.queue_size", got=self.queue_size, expected="1 or more", do="e.g. 4096")
        require(self.temperature > 0, what="moco.temperature", got=self.temperature, expected="above 0", do="e.g. 0.2")


class MoCo(nn.Module):
    """A backbone, the copy that follows it slowly, and the queue of the copy's past embeddings.

    The backbone's projector is the MLP head on the video's node. There is no BatchNorm, so a key cannot be told by its
    batch and nothing has to be shuffled.

    Args:
        backbone: is trained.
        config: momentum and queue.

    Source: He et al. 2020 (MoCo), algorithm 1; Chen et al. 2020 (MoCo v2), MLP head and temperature.
    """

    queue_QE: Tensor
    next_row: Tensor

    def __init__(self, backbone: HierarchicalVLM, config: MoCoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.key = copy.deepcopy(backbone).requires_grad_(False)
        # Buffers: they are in every checkpoint, and a training that continues has the same negatives.
        self.register_buffer("queue_QE", functional.normalize(torch.randn(config.queue_size, backbone.d_projected)))
        self.register_buffer("next_row", torch.zeros((), dtype=torch.int64))

    def forward(self, query: Rows, key: Rows) -> tuple[Tensor, Tensor]:
        """Two views of the same videos → unit vectors (B, E) of the backbone, and of its copy without gradient.

        While training, the copy first takes its step towards the backbone.
        """
        query_BE = _embed(self.backbone, query)
        with torch.no_grad():
            if self.training:
                self._follow()
            key_BE = _embed(self.key, key)
        return query_BE, key_BE

    @torch.no_grad()
    def enqueue(self, key_NE: Tensor) -> None:
        """Put the keys of the global batch in the place of the oldest ones; after the backward pass, which reads them.

        Args:
            key_NE: unit vectors, at most Q.
        """
        rows_N = (self.next_row + torch.arange(len(key_NE), device=key_NE.device)) % len(self.queue_QE)
        self.queue_QE[rows_N] = key_NE.to(self.queue_QE.dtype)
        self.next_row.copy_((self.next_row + len(key_NE)) % len(self.queue_QE))

    def _follow(self) -> None:
        for slow, fast in zip(self.key.parameters(), self.backbone.parameters(), strict=True):
            slow.lerp_(fast, 1.0 - self.config.momentum)


def _embed(network: HierarchicalVLM, rows: Rows) -> Tensor:
    _, levels = network.encode(*rows)
    return functional.normalize(network.projector(levels[-1].nodes_BLD[:, 0]).float(), dim=-1)
