"""The encoders that a configuration can name."""

from hvlm.encoders.base import Encoder, EncoderDescription
from hvlm.encoders.c3d import C3DConfig, describe_c3d, load_c3d
from hvlm.encoders.clip import ClipConfig, describe_clip, load_clip

EncoderConfig = ClipConfig | C3DConfig


def describe_encoder(config: EncoderConfig) -> EncoderDescription:
    """Return width, view and identity of an encoder; builds no network, hashes a weights file once per process.

    Raises:
        UserError: what the configuration names does not exist.
    """
    return describe_clip(config) if isinstance(config, ClipConfig) else describe_c3d(config)


def load_encoder(config: EncoderConfig, device: str) -> Encoder:
    """Return the encoder on `device` (`cpu`, `cuda`, `cuda:1`), ready to encode.

    Raises:
        UserError: what the configuration names does not exist or does not fit.
    """
    return load_clip(config, device) if isinstance(config, ClipConfig) else load_c3d(config, device)
