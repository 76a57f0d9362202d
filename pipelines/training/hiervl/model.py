"""The model that a configuration of HierVL names: on frozen text vectors, or with a text tower inside."""

from hvlm.encoders.config import ClipConfig
from hvlm.encoders.text_lora import load_lora_text_tower
from hvlm.models.hiervl import HierVL, HierVLConfig, TowerTextEncoder, build_hiervl
from pipelines.training.hiervl.config import HierVLTextConfig


def build_model(config: HierVLConfig, text: HierVLTextConfig, d_in: int, d_text: int) -> HierVL:
    """Return a model with new weights; with a text tower it begins as the model without one.

    Args:
        config: sizes. text: which tower, and its adapters.
        d_in: width of the features of a frame. d_text: width of the text features.

    Raises:
        UserError: sizes that do not fit, or no such text tower.
    """
    model = build_hiervl(config, d_in, d_text)
    if text.lora is not None and isinstance(text.encoder, ClipConfig):
        # After the rest: the adapters' draws must not shift those of the other weights.
        model.text_encoder = TowerTextEncoder(load_lora_text_tower(text.encoder, text.lora), model.text_encoder)
    return model
