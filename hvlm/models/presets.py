"""Named sizes of the temporal encoder."""

from typing import Literal, get_args

from hvlm.config import require
from hvlm.models.temporal_encoder import TemporalEncoderConfig

PresetName = Literal["upstream", "S", "tiny"]


def encoder_preset(name: PresetName) -> TemporalEncoderConfig:
    """The encoder sizes called `name`, with dropout 0.1.

    `upstream` has 77,882,568 parameters with an input of 2048 and a 200-way frame head, `S` 13,762,248; `tiny` is for
    tests and the demo on a CPU.

    Raises:
        UserError: unknown name.
    """
    names = get_args(PresetName)
    require(name in names, what="model.encoder", got=name, expected=f"one of {', '.join(names)}", do="choose one")
    if name == "upstream":
        return TemporalEncoderConfig(d_model=1024, num_layers=6, num_heads=8, d_ff=4096)
    if name == "S":
        return TemporalEncoderConfig(d_model=512, num_layers=4, num_heads=8, d_ff=2048)
    return TemporalEncoderConfig(d_model=64, num_layers=2, num_heads=4, d_ff=128)


def resolve_encoder(encoder: TemporalEncoderConfig | PresetName) -> TemporalEncoderConfig:
    """A preset's sizes for a name; a configuration as it is."""
    return encoder_preset(encoder) if isinstance(encoder, str) else encoder
