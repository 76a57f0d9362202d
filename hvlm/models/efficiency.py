"""What the temporal encoder costs: parameters, bytes, floating-point operations, and three memory ratios.

The ratios have three names because they are three things; the published "130 x" is the first, at T = 250, with a slip:
- `pyramid.score_ratio_upstream`: scores of *one* head and layer over *stored tokens* of the pyramid; no memory figure.
- `attn.entries_ratio`: scores of full attention over scores of this encoder's attention plus the pyramid's.
- `mem.peak_ratio`: measured peak bytes of the full over this encoder.
Shapes: T frames, D width, I input width, F width of the feed-forward part, K width of a head.
"""

import torch
from torch import nn

from hvlm.config import require
from hvlm.models.attention import build_attention
from hvlm.models.pyramid import level_lengths
from hvlm.models.temporal_encoder import TemporalEncoderConfig

# Backward takes the product with the weights and the product with the inputs, each as large as the forward product.
TRAINING_FACTOR = 3


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Number of parameters of each direct child that has any, and of the module's own under its name; they add up.

    A parameter that two parts share counts in the first.
    """
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            part = name.split(".", 1)[0]
            counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def weight_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of the model's parameters stored as `dtype`; divide by 2**20 for MiB."""
    return sum(parameters_by_part(model).values()) * dtype.itemsize


def attention_entries(config: TemporalEncoderConfig, num_frames: int) -> int:
    """Attention scores of all layers and heads for one video of `num_frames` rows."""
    with torch.device("meta"):
        attention = build_attention(
            config.attention,
            config.d_model,
            config.num_heads,
            config.dropout,
            window=config.window_rows,
            num_global=config.num_global_tokens,
        )
    return config.num_layers * attention.entries(num_frames)


def encoder_flops(config: TemporalEncoderConfig, d_in: int, num_frames: int, *, training: bool = False) -> int:
    """Floating-point operations of the encoder's matrix products for one video; a multiplication and an addition are 2.

    T I D for the input, (4 D^2 + 2 D F) per row and layer, 2 K per attention score (one product makes it, one uses it).
    Norms, activations and softmax are not counted: they move bytes rather than multiply.

    Args:
        config: sizes.
        d_in: width I of the features.
        num_frames: T.
        training: forward and backward (three times the forward) instead of forward.
    """
    per_row = 4 * config.d_model**2 + 2 * config.d_model * config.d_ff
    products = num_frames * d_in * config.d_model
    products += config.num_layers * (num_frames + config.num_global_tokens) * per_row
    products += 2 * attention_entries(config, num_frames) * (config.d_model // config.num_heads)
    return 2 * products * (TRAINING_FACTOR if training else 1)


def score_ratio_upstream(num_frames: int) -> float:
    """`pyramid.score_ratio_upstream` = T^2 / sum of the pyramid's lengths: 126.5 at T = 250 (the claim: 130)."""
    return num_frames**2 / sum(level_lengths(num_frames))


def entries_ratio(config: TemporalEncoderConfig, num_frames: int) -> float:
    """`attn.entries_ratio` = layers heads T^2 / (this encoder's scores + the pyramid's, one per node).

    With full attention it is just below 1: the pyramid comes on top.
    """
    full = config.num_layers * config.num_heads * num_frames**2
    return full / (attention_entries(config, num_frames) + sum(level_lengths(num_frames)))


def peak_ratio(full_peak_bytes: int, peak_bytes: int) -> float:
    """`mem.peak_ratio` = peak bytes of full attention over those of this encoder.

    Both measured at the same B, T and dtype; state the kernel beside it (a fused one is O(T) already, so the ratio is
    small; one that writes scores out grows with T), and whether forward or forward and backward.

    Raises:
        UserError: a measurement is not above 0.
    """
    require(
        full_peak_bytes > 0 and peak_bytes > 0,
        what="mem.peak_ratio",
        got=(full_peak_bytes, peak_bytes),
        expected="two measured peaks above 0 bytes",
        do="measure both with torch.cuda.max_memory_allocated",
    )
    return full_peak_bytes / peak_bytes
