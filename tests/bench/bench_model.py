"""What HierarchicalVLM costs: parameters, bytes, operations, the three memory ratios, rows per second, over T.

    python -m tests.bench.bench_model   # part of `make bench`

Presets `upstream` and `S` on features 2048 wide with a pyramid, a projector and text heads. `sweep`: the encoder of S,
batch 1, float32 (bfloat16 on a GPU), forward alone: median of three after one to warm up; peak bytes and their ratio on
a GPU only. `score_ratio` and `entries_ratio` are arithmetic, `peak_ratio` is measured (hvlm.models.efficiency).
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hvlm.models.attention import AttentionKind
from hvlm.models.efficiency import (
    encoder_flops,
    entries_ratio,
    parameters_by_part,
    peak_ratio,
    score_ratio_upstream,
    weight_bytes,
)
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.presets import PresetName, encoder_preset
from hvlm.models.temporal_encoder import TemporalEncoder, TemporalEncoderConfig
from tests.bench.record import record

D_IN, D_TEXT = 2048, 512
LENGTHS = (128, 512, 2048)
WINDOW = 32


def preset_figures(preset: PresetName) -> dict[str, Any]:
    """Sizes and operations of a preset at T = 250, by arithmetic."""
    with torch.device("meta"):
        model = build_model(HierarchicalVLMConfig(encoder=preset), D_IN, D_TEXT)
    config = encoder_preset(preset)
    return {
        "what": preset,
        **{f"{part}_parameters": count for part, count in parameters_by_part(model).items()},
        "weights_fp32_mib": weight_bytes(model, torch.float32) / 2**20,
        "weights_bf16_mib": weight_bytes(model, torch.bfloat16) / 2**20,
        "forward_gflop_at_250": encoder_flops(config, D_IN, 250) / 1e9,
        "training_gflop_at_250": encoder_flops(config, D_IN, 250, training=True) / 1e9,
        "pyramid.score_ratio_upstream_at_250": score_ratio_upstream(250),
        "attn.entries_ratio_at_250": entries_ratio(_attention(config, "windowed"), 250),
    }


def sweep(device: torch.device, num_threads: int) -> list[dict[str, Any]]:
    """Rows per second, and on a GPU the peak bytes, of each attention over T."""
    torch.set_num_threads(num_threads)
    rows: list[dict[str, Any]] = []
    for length in LENGTHS:
        peaks: dict[str, int] = {}
        kinds: tuple[AttentionKind, ...] = ("full", "windowed", "linear")
        for kind in kinds:
            encoder = TemporalEncoder(_attention(encoder_preset("S"), kind), (D_IN,)).to(device).eval()
            seconds, peaks[kind] = _forward(encoder, length, device)
            row = {"what": f"sweep, {kind}, T = {length}", "threads": num_threads, "rows_per_s": length / seconds}
            if peaks[kind]:
                row |= {"peak_mib": peaks[kind] / 2**20, "mem.peak_ratio": peak_ratio(peaks["full"], peaks[kind])}
            rows.append(row)
    return rows


def _attention(config: TemporalEncoderConfig, kind: AttentionKind) -> TemporalEncoderConfig:
    windowed = kind == "windowed"
    return replace(
        config, attention=kind, window_rows=WINDOW if windowed else 0, num_global_tokens=4 if windowed else 0
    )


@torch.inference_mode()
def _forward(encoder: TemporalEncoder, length: int, device: torch.device) -> tuple[float, int]:
    """Seconds of a forward pass, and its peak bytes on a GPU, 0 else."""
    on_gpu = device.type == "cuda"
    features = torch.randn(1, length, D_IN, device=device)
    times = torch.arange(float(length), device=device)[None]
    mask = torch.ones(1, length, dtype=torch.bool, device=device)
    seconds = []
    for _ in range(4):
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            encoder(features, times, mask)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:])), torch.cuda.max_memory_allocated() if on_gpu else 0


def main() -> None:
    """Measure, print and write `runs/bench/model.json`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = [preset_figures("upstream"), preset_figures("S")]
    for num_threads in [1] if device.type == "cuda" else sorted({1, torch.get_num_threads()}):
        figures += sweep(device, num_threads)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    record("model", [figure | {"device": hardware} for figure in figures])


if __name__ == "__main__":
    main()
