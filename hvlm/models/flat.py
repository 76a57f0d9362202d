"""What stands in the place of HierarchicalVLM's parts where a baseline has no hierarchy or looks at each row alone.

Shapes: B local batch, T frames, I input width, D width of the encoder, K segments of a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hvlm.config import Config, require
from hvlm.losses.batch import take_rows
from hvlm.models.attention import padded
from hvlm.models.input_norm import InputNorm, InputNormKind
from hvlm.models.pyramid import PyramidLevel, frame_spans, spans_in_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatPoolingConfig(Config):
    """One reduction from the rows to the video. `mean`: of all rows. `segments`: of one row from each of `num_segments`
    equal parts, a random one while training, the middle one else."""

    kind: Literal["mean", "segments"]
    num_segments: int = 0

    def __post_init__(self) -> None:
        wanted = self.kind == "segments"
        require(
            self.num_segments >= 1 if wanted else self.num_segments == 0,
            what="pyramid.num_segments",
            got=f"{self.num_segments} with kind: {self.kind}",
            expected="1 or more" if wanted else "no num_segments",
            do="set e.g. num_segments: 8" if wanted else "leave it out, or choose kind: segments",
        )


class FlatPooling(nn.Module):
    """A pyramid of two levels: the rows, and one node per video.

    Args:
        config: which mean.

    Source: `segments`, Wang et al. 2016 (TSN): sparse sampling and the average as consensus.
    """

    def __init__(self, config: FlatPoolingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, hidden_BTD: Tensor, times_BT: Tensor, mask_BT: Tensor) -> list[PyramidLevel]:
        """The two levels, the rows first; see `AttentionPyramid.forward`."""
        length_B = mask_BT.sum(1)
        rows_BTD = padded(hidden_BTD, mask_BT)
        spans_BL2 = frame_spans(length_B, 0, mask_BT.shape[1])
        base = PyramidLevel(rows_BTD, mask_BT, None, spans_BL2, spans_in_seconds(spans_BL2, times_BT, mask_BT))
        whole_B12 = torch.stack([torch.zeros_like(length_B), length_B], dim=-1)[:, None]
        top_BD = self._mean(rows_BTD, length_B)
        spans_s_B12 = spans_in_seconds(whole_B12, times_BT, mask_BT)
        return [base, PyramidLevel(top_BD[:, None], length_B[:, None] > 0, None, whole_B12, spans_s_B12)]

    def _mean(self, rows_BTD: Tensor, length_B: Tensor) -> Tensor:
        num_segments = self.config.num_segments
        if num_segments == 0:
            return (rows_BTD.float().sum(1) / length_B.clamp_min(1)[:, None]).to(rows_BTD.dtype)
        inside_BK = torch.full((len(length_B), num_segments), 0.5, device=length_B.device)
        if self.training:
            inside_BK = torch.rand_like(inside_BK)
        segment_K = torch.arange(num_segments, device=length_B.device)
        row_BK = ((segment_K + inside_BK) * length_B[:, None] / num_segments).long()
        row_BK = row_BK.minimum((length_B - 1)[:, None]).clamp_min(0)
        return take_rows(rows_BTD, row_BK).float().mean(1).to(rows_BTD.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEncoderConfig(Config):
    """A network that sees one row at a time, without its place in the video."""

    kind: Literal["rows"]
    d_model: int = 512
    d_hidden: int = 1024
    dropout: float = 0.1
    input_norm: InputNormKind = "layer"

    def __post_init__(self) -> None:
        for name in ("d_model", "d_hidden"):
            value = getattr(self, name)
            require(value >= 1, what=f"encoder.{name}", got=value, expected="1 or more", do=f"raise {name}")
        require(0 <= self.dropout < 1, what="encoder.dropout", got=self.dropout, expected="0 <= p < 1", do="lower it")


class RowEncoder(nn.Module):
    """Linear → GELU → Dropout → Linear → LayerNorm on each row by itself; called as `TemporalEncoder` is.

    Args:
        config: sizes.
        input_dims: width of each encoder's features, in the order in which the stream concatenates them.
    """

    def __init__(self, config: RowEncoderConfig, input_dims: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.input_norm = InputNorm(config.input_norm, input_dims)
        self.layers = nn.Sequential(
            nn.Linear(sum(input_dims), config.d_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_hidden, config.d_model),
            nn.LayerNorm(config.d_model),
        )

    def forward(self, features_BTI: Tensor, times_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, I) → (B, T, D); padded rows are zero. The times are not looked at."""
        rows_BTI = padded(features_BTI, mask_BT).to(self.layers[0].weight.dtype)  # type: ignore[arg-type]
        return padded(self.layers(self.input_norm(rows_BTI)), mask_BT)
