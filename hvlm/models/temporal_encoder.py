"""Temporal encoder: a pre-LN transformer over feature rows with positions in seconds (phase 1 of HierarchicalVLM).

Shapes: B local batch, T frames, G global tokens, S rows of a sequence (G + T), I input width, D width of the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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

    `attention: windowed` needs `window_rows`, seen to each side; its `num_global_tokens` learned tokens, which see and
    are seen by all rows, add G d_model parameters. No other choice changes their number.
    """

    d_model: int = 512
    num_layers: int = 4
    num_heads: int = 8
    d_ff: int = 2048
    dropout: float = 0.1
    attention: AttentionKind = "full"
    window_rows: int = 0
    num_global_tokens: int = 0
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
        windowed = self.attention == "windowed"
        require(
            self.window_rows >= 1 if windowed else self.window_rows == 0,
            what="encoder.window_rows",
            got=f"{self.window_rows} with attention: {self.attention}",
            expected="1 or more" if windowed else "no window_rows",
            do="set e.g. window_rows: 32" if windowed else "leave it out, or choose attention: windowed",
        )
        require(
            self.num_global_tokens >= 0 if windowed else self.num_global_tokens == 0,
            what="encoder.num_global_tokens",
            got=f"{self.num_global_tokens} with attention: {self.attention}",
            expected="0 or more" if windowed else "no num_global_tokens",
            do="set e.g. num_global_tokens: 4" if windowed else "leave it out, or choose attention: windowed",
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
        self.attention = build_attention(
            config.attention,
            config.d_model,
            config.num_heads,
            config.dropout,
            window=config.window_rows,
            num_global=config.num_global_tokens,
        )
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.ffn_in = nn.Linear(config.d_model, config.d_ff)
        self.ffn_out = nn.Linear(config.d_ff, config.d_model)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """One layer; (B, S, D) → (B, S, D)."""
        x_BSD = x_BSD + self.dropout(self.attention(self.attention_norm(x_BSD), mask_BS))
        hidden_BSF = self.dropout(self.activation(self.ffn_in(self.ffn_norm(x_BSD))))
        out_BSD: Tensor = x_BSD + self.dropout(self.ffn_out(hidden_BSF))
        return out_BSD


class TemporalEncoder(nn.Module):
    """Linear → + positions in seconds → (global tokens in front) → pre-LN layers → (tokens off) → LayerNorm.

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
        num_global = config.num_global_tokens
        # Unit variance, about that of the embedded rows; without a time, as they belong to none.
        self.global_tokens_GD = nn.Parameter(torch.randn(num_global, config.d_model)) if num_global else None

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
        return padded(self.norm(self._through_layers(x_BTD, mask_BT)), mask_BT)

    def _through_layers(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The layers over the rows and, with windowed attention, the tokens that carry what windows cannot see."""
        tokens_GD = self.global_tokens_GD
        num_global = 0 if tokens_GD is None else len(tokens_GD)
        x_BSD, mask_BS = x_BTD, mask_BT
        if tokens_GD is not None:
            x_BSD = torch.cat([tokens_GD.to(x_BTD.dtype).expand(len(x_BTD), -1, -1), x_BTD], dim=1)
            mask_BS = torch.cat([mask_BT.new_ones(len(mask_BT), num_global), mask_BT], dim=1)
        for layer in self.layers:
            x_BSD = layer(x_BSD, mask_BS)
        return x_BSD[:, num_global:]
