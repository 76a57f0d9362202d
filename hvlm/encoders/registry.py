"""The encoders that a configuration can name; an encoder's libraries are imported when one of its kind is used."""

from hvlm.encoders.base import Encoder, EncoderDescription
from hvlm.encoders.config import ClipConfig, EncoderConfig


def describe_encoder(config: EncoderConfig) -> EncoderDescription:
    """Return width, view and identity of an encoder; builds no network, hashes a weights file once per process.

    Raises:
        UserError: what the configuration names does not exist.
    """
    if isinstance(config, ClipConfig):
        from hvlm.encoders.clip import describe_clip

        return describe_clip(config)
    from hvlm.encoders.c3d import describe_c3d

    return describe_c3d(config)


def load_encoder(config: EncoderConfig, device: str) -> Encoder:
    """Return the encoder on `device` (`cpu`, `cuda`, `cuda:1`), ready to encode.

    Raises:
        UserError: what the configuration names does not exist or does not fit.
    """
    if isinstance(config, ClipConfig):
        from hvlm.encoders.clip import load_clip

        return load_clip(config, device)
    from hvlm.encoders.c3d import load_c3d

    return load_c3d(config, device)
