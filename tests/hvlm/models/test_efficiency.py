from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hvlm.errors import UserError
from hvlm.models.attention import AttentionKind
from hvlm.models.efficiency import (
    attention_entries,
    encoder_flops,
    entries_ratio,
    parameters_by_part,
    peak_ratio,
    score_ratio_upstream,
    weight_bytes,
)
from hvlm.models.heads import AlignmentConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.presets import encoder_preset
from hvlm.models.temporal_encoder import TemporalEncoder


def test_parameters_and_bytes_of_the_published_size() -> None:
    config = HierarchicalVLMConfig(encoder="upstream", num_classes=200, alignment=AlignmentConfig(enabled=False))
    with torch.device("meta"):
        model = build_model(config, 2048)
    parts = parameters_by_part(model)
    assert parts["encoder"] + parts["classifier"] == 77_882_568
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    backbone = nn.ModuleList([model.encoder, model.classifier])  # type: ignore[list-item]
    assert weight_bytes(backbone, torch.float32) / 2**20 == pytest.approx(297.1, abs=0.05)
    assert weight_bytes(backbone, torch.bfloat16) == 2 * 77_882_568


def test_shared_parameters_count_once() -> None:
    first = nn.Linear(3, 2)
    assert parameters_by_part(nn.ModuleDict({"a": first, "b": nn.Sequential(first, nn.Linear(2, 1))})) == {
        "a": 8,
        "b": 3,
    }


def test_flops_of_the_published_size() -> None:
    # the specification: 121 GFLOP per sample at T = 250, forward and backward
    assert encoder_flops(encoder_preset("upstream"), 2048, 250, training=True) / 1e9 == pytest.approx(121, abs=0.5)
    assert encoder_flops(encoder_preset("S"), 512, 100, training=True) == 3 * encoder_flops(
        encoder_preset("S"), 512, 100
    )


@pytest.mark.parametrize("attention", ["full", "windowed", "linear"])
def test_flops_are_those_that_torch_counts(attention: AttentionKind) -> None:
    windows = {"window_rows": 8, "num_global_tokens": 2} if attention == "windowed" else {}
    config = replace(encoder_preset("tiny"), attention=attention, input_norm="none", **windows)
    encoder = TemporalEncoder(config, (16,)).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.randn(1, 64, 16), torch.arange(64.0)[None], torch.ones(1, 64, dtype=torch.bool))
    counted = counter.get_total_flops()
    # The linear one also sums its weights: T K products per head and layer, 1 / (2 K) of its attention.
    normaliser = 2 * 2 * 4 * 64 * 16 if attention == "linear" else 0
    assert counted - normaliser == encoder_flops(config, 16, 64)


@pytest.mark.parametrize(
    ("num_frames", "expected"), [(100, 50.8), (250, 126.5), (336, 168.8), (1000, 501.5), (4096, 2048)]
)
def test_upstream_ratio(num_frames: int, expected: float) -> None:
    assert score_ratio_upstream(num_frames) == pytest.approx(expected, abs=0.3)


def test_entries_ratio_by_hand() -> None:
    full = encoder_preset("upstream")
    assert attention_entries(full, 250) == 6 * 8 * 250**2
    assert entries_ratio(full, 250) == 3_000_000 / (3_000_000 + 494)
    windowed = replace(full, attention="windowed", window_rows=10)
    assert entries_ratio(windowed, 250) == 3_000_000 / (6 * 8 * 250 * 30 + 494)
    # O(T): twice the length, twice the ratio
    assert entries_ratio(windowed, 8000) / entries_ratio(windowed, 4000) == pytest.approx(2, abs=0.01)


def test_peak_ratio() -> None:
    assert peak_ratio(300, 100) == 3.0
    with pytest.raises(UserError, match="above 0"):
        peak_ratio(300, 0)
