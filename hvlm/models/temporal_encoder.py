"""Temporal encoder: a pre-LN transformer over feature rows with positions in seconds (phase 1 of HierarchicalVLM).

Shapes: B local batch, T frames, I input width, D width of the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hvlm.config import Config, require
from hvlm.models.attention import AttentionKind, build_attention, padded
from hvlm.models.input_norm import InputNorm, InputNormKind
from hvlm.models.positions import sinusoidal_positions


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalEncoderConfig(Config):
    """Size of the encoder. The input width is no part of it: it comes from the feature store.

    `position_scale` multiplies the sinusoids, whose root mean square is 0.71; rows that enter with unit variance leave
    the first linear layer with a root mean square of 0.58, so 1.0 keeps content and position of like size.
    """

    d_model: int = 512
    num_layers: int = 4
    num_heads: int = 8
    d_ff: int = 2048
    dropout: float = 0.1
    attention: AttentionKind = "full"
    input_norm: InputNormKind = "layer"
    position_scale: float = 1.0
    min_period_s: float = 1.0
    max_period_s: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_layers", "num_heads", "d_ff"):
            value = getattr(self, name)
            require(value >= 1, what=f"encoder.{name}", got=value, expected="1 or more", do=f"raise {name}")
        require(
            self.d_model % 2 == 0 and self.d_model % self.num_heads == 0,
            what="encoder.d_model",
            got=self.d_model,
            expected=f"even and a multiple of num_heads={self.num_heads}",
            do="change one of the two",
        )
        require(0 <= self.dropout < 1, what="encoder.dropout", got=self.dropout, expected="0 <= p < 1", do="lower it")
        require(
            0 < self.min_period_s < self.max_period_s,
            what="encoder.min_period_s",
            got=self.min_period_s,
            expected=f"between 0 and max_period_s={self.max_period_s}",
            do="keep the defaults 1.0 and 10000.0",
        )


class EncoderLayer(nn.Module):
    """x + attention(LN(x)), then x + FFN(LN(x)) with GELU. Parameters: 4d^2 + 4d + 2 d ff + ff + d + 4d."""

    def __init__(self, config: TemporalEncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = build_attention(config.attention, config.d_model, config.num_heads, config.dropout)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.ffn_in = nn.Linear(config.d_model, config.d_ff)
        self.ffn_out = nn.Linear(config.d_ff, config.d_model)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """One layer; (B, T, D) → (B, T, D)."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), mask_BT))
        hidden_BTF = self.dropout(self.activation(self.ffn_in(self.ffn_norm(x_BTD))))
        out_BTD: Tensor = x_BTD + self.dropout(self.ffn_out(hidden_BTF))
        return out_BTD


class TemporalEncoder(nn.Module):
    """Linear → + positions in seconds → pre-LN layers → LayerNorm.

    Args:
        config: sizes.
        input_dims: width of each encoder's features, in the order in which the stream concatenates them.

    Source: the preset `upstream` has the sizes of arrdel/hierarchical-vlm, with positions, pre-LN and GELU.
    """

    def __init__(self, config: TemporalEncoderConfig, input_dims: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.input_norm = InputNorm(config.input_norm, input_dims)
        self.embed = nn.Linear(sum(input_dims), config.d_model)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, features_BTI: Tensor, times_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Encode feature rows in the light of their whole video.

        Args:
            features_BTI: float (B, T, I); what stands in padded rows does not matter.
            times_BT: float (B, T), start of each row in seconds.
            mask_BT: bool (B, T), True = real, a prefix of ones.

        Returns:
            (B, T, D); padded rows are zero. A real row does not depend on the content or amount of padding.
        """
        cfg = self.config
        times_BT = times_BT.masked_fill(~mask_BT, 0.0)
        positions_BTD = sinusoidal_positions(
            times_BT, cfg.d_model, min_period_s=cfg.min_period_s, max_period_s=cfg.max_period_s
        )
        rows_BTI = self.input_norm(padded(features_BTI.to(self.embed.weight.dtype), mask_BT))
        x_BTD = self.embed(rows_BTI) + cfg.position_scale * positions_BTD.to(self.embed.weight.dtype)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT)
        return padded(self.norm(x_BTD), mask_BT)
