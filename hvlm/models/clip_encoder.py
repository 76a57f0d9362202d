"""From the frames of a clip to one vector of the joint space.

On extracted features a frame is a row of the store, whatever the encoder: a CLIP frame, the vector of a C3D window of
16 frames, or both side by side. An encoder that reads pixels satisfies the same `ClipEncoder`, with frames (3, H, W).

Shapes: B clips, T frames of a clip, I width of the features, D width inside, E width of the joint space.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from hvlm.config import Config, require
from hvlm.models.aggregator import PreNormBlock, init_transformer, with_cls
from hvlm.models.attention import padded


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEncoderConfig(Config):
    """`mean`: the frames' mean, LN, Linear–GELU–Linear. `attention`: frames as tokens with a learned time table, CLS,
    `num_layers` pre-LN layers; a clip has at most `max_frames` frames. `hidden`: width D of both."""

    kind: Literal["mean", "attention"] = "mean"
    hidden: int = 512
    num_layers: int = 1
    num_heads: int = 8
    max_frames: int = 16

    def __post_init__(self) -> None:
        for name in ("hidden", "num_layers", "num_heads", "max_frames"):
            value = getattr(self, name)
            require(value >= 1, what=f"clip.{name}", got=value, expected="1 or more", do=f"raise {name}")


class ClipEncoder(Protocol):
    """What a clip encoder must offer, on features (frames of shape (I,)) or on pixels (frames of shape (3, H, W))."""

    def __call__(self, clip_BTX: Tensor, frame_mask_BT: Tensor) -> Tensor:
        """(B, T, ...) and bool (B, T), True = real → (B, E), not normalised, finite also without a real frame."""
        ...


class MeanClipEncoder(nn.Module):
    """Mean of the real frames → LN → Linear → GELU → Linear. The order and number of the frames do not matter.

    Args:
        config: width inside.
        d_in: width I of the features.
        dim: width E.
    """

    def __init__(self, config: ClipEncoderConfig, d_in: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.LayerNorm(d_in), nn.Linear(d_in, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim)
        )

    def forward(self, clip_BTI: Tensor, frame_mask_BT: Tensor) -> Tensor:
        """(B, T, I) of any float type and bool (B, T) → (B, E)."""
        frames_BTI = padded(clip_BTI.float(), frame_mask_BT)
        mean_BI = frames_BTI.sum(1) / frame_mask_BT.sum(1, keepdim=True).clamp_min(1)
        projected_BE: Tensor = self.head(mean_BI)
        return projected_BE


class AttentionClipEncoder(nn.Module):
    """LN, Linear, + time table → CLS in front → pre-LN layers → LN of CLS → Linear.

    Args:
        config: sizes.
        d_in: width I of the features.
        dim: width E.
    """

    def __init__(self, config: ClipEncoderConfig, d_in: int, dim: int) -> None:
        super().__init__()
        width = config.hidden
        self.max_frames = config.max_frames
        self.cls_D = nn.Parameter(torch.empty(width))
        self.times_TD = nn.Parameter(torch.empty(config.max_frames, width))
        self.embed = nn.Sequential(nn.LayerNorm(d_in), nn.Linear(d_in, width))
        self.layers = nn.ModuleList(PreNormBlock(width, config.num_heads) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, dim)
        init_transformer(self)

    def forward(self, clip_BTI: Tensor, frame_mask_BT: Tensor) -> Tensor:
        """(B, T, I) of any float type, in time order, and bool (B, T) → (B, E).

        Raises:
            UserError: more frames than the time table has.
        """
        T = clip_BTI.shape[1]
        require(
            self.max_frames >= T,
            what="frames per clip",
            got=T,
            expected=f"at most clip.max_frames={self.max_frames}",
            do="raise clip.max_frames before training, or draw fewer frames",
        )
        tokens_BTD = self.embed(padded(clip_BTI.float(), frame_mask_BT)) + self.times_TD[:T]
        x_BLD, mask_BL = with_cls(self.cls_D, tokens_BTD, frame_mask_BT)
        for layer in self.layers:
            x_BLD = layer(x_BLD, mask_BL)
        projected_BE: Tensor = self.project(self.norm(x_BLD[:, 0]))
        return projected_BE


def build_clip_encoder(config: ClipEncoderConfig, d_in: int, dim: int) -> MeanClipEncoder | AttentionClipEncoder:
    """The encoder that `config` names, from features of width `d_in` to vectors of width `dim`."""
    return (MeanClipEncoder if config.kind == "mean" else AttentionClipEncoder)(config, d_in, dim)
