import subprocess
import sys

import pytest

from hvlm.encoders.config import C3DConfig, ClipConfig, LoraConfig
from hvlm.errors import UserError


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"seed": -1}, {"model": ""}, {"pretrained": ""}])
def test_clip_values_out_of_range_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        ClipConfig(**{"model": "ViT-B-32", "pretrained": "random", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 0.0},
        {"stride_frames": 0},
        {"stride_frames": 15, "only_spans": True},
        {"width": 0.0},
        {"fc_dim": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"weights": ""},
    ],
)
def test_c3d_values_out_of_range_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        C3DConfig(**{"weights": "random", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0},
        {"lora_alpha": 0},
        {"lora_dropout": 1.0},
        {"lora_dropout": -0.1},
        {"target_modules": ()},
        {"target_modules": ("q_proj", "q_proj")},
    ],
)
def test_adapters_out_of_range_are_refused(changes):
    with pytest.raises(UserError, match=f"lora.{next(iter(changes))}"):
        LoraConfig(**changes)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pipelines.extraction.decode_stage", "torch"),
        ("pipelines.extraction.staging_stage", "torch"),
        ("pipelines.extraction.config", "torch"),
        ("pipelines.extraction.encode_stage", "open_clip"),
        ("hvlm.encoders.c3d", "open_clip"),
    ],
)
def test_a_worker_imports_only_what_it_uses(module, unwanted):
    """PyTorch costs 2 CPU seconds and open_clip 3 more, in every process of every stage."""
    code = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
