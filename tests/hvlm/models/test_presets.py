from dataclasses import replace

import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.attention import AttentionKind
from hvlm.models.heads import AlignmentConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.presets import PresetName, encoder_preset, resolve_encoder
from hvlm.models.temporal_encoder import TemporalEncoder


@pytest.mark.parametrize(("name", "expected"), [("upstream", 77_882_568), ("S", 13_762_248)])
def test_backbone_and_frame_head_have_the_published_sizes(name: PresetName, expected: int) -> None:
    config = HierarchicalVLMConfig(encoder=name, num_classes=200, alignment=AlignmentConfig(enabled=False))
    with torch.device("meta"):
        model = build_model(config, 2048)
    assert model.classifier is not None
    parameters = [*model.encoder.parameters(), *model.classifier.parameters()]
    assert sum(p.numel() for p in parameters) == expected


@pytest.mark.parametrize(("attention", "extra"), [("full", 0), ("linear", 0), ("windowed", 4 * 512)])
def test_another_attention_adds_its_global_tokens_alone(attention: AttentionKind, extra: int) -> None:
    with torch.device("meta"):
        windows = {"window_rows": 32, "num_global_tokens": 4} if attention == "windowed" else {}
        model = TemporalEncoder(replace(encoder_preset("S"), attention=attention, **windows), (2048,))
        full = TemporalEncoder(encoder_preset("S"), (2048,))
    counts = [sum(p.numel() for p in encoder.parameters()) for encoder in (model, full)]
    assert counts[0] - counts[1] == extra


def test_a_name_or_explicit_sizes() -> None:
    assert resolve_encoder("tiny") == encoder_preset("tiny")
    explicit = encoder_preset("S")
    assert resolve_encoder(explicit) is explicit


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="upstream, S, tiny"):
        encoder_preset("XL")  # type: ignore[arg-type]
