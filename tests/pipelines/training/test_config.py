from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config, load_config
from pipelines.training.config import TrainConfig

ROOT = Path(__file__).parents[3]
BASE: dict[str, Any] = {
    "store_uri": "s",
    "output_uri": "o",
    "text": {"encoder": {"kind": "clip", "model": "ViT-B-32", "pretrained": "random"}},
}


@pytest.mark.parametrize("name", ["train_demo", "train_smoke", "train_upstream"])
def test_the_presets_load_and_come_back(name: str) -> None:
    config = load_config(TrainConfig, str(ROOT / f"jobs/configs/{name}.yaml"))
    assert build_config(TrainConfig, dump_config(config), origin="dump") == config


def test_best_is_never_a_raw_loss() -> None:
    assert build_config(TrainConfig, BASE, origin="x").best_metric == "text_to_video"
    without = BASE | {"model": {"alignment": {"enabled": False}}, "objective": {}}
    assert build_config(TrainConfig, without, origin="x").best_metric == "contrast_gap"
    assert not build_config(TrainConfig, without, origin="x").uses_text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": {}}, r"text\.encoder: got none"),
        (
            {"batching": {"global_batch_size": 8}, "resources": {"num_workers": 3}},
            "every number of workers from 3 to 3",
        ),
        ({"batching": {"global_batch_size": 8}, "resources": {"num_workers": [2, 4]}}, "from 2 to 4"),
        ({"resources": {"num_workers": [4, 2]}}, r"resources\.num_workers"),
        ({"resources": {"num_workers": 0}}, r"resources\.num_workers"),
        ({"resources": {"threads_per_worker": 0}}, r"resources\.threads_per_worker: got 0"),
        ({"model": {"alignment": {"max_logit_scale": 0}}}, r"alignment\.max_logit_scale: got 0"),
        ({"optimizer": {"lr": 1e-7}}, "0 < min_lr <= lr"),
        ({"optimizer": {"clip_norm": 0}}, r"optimizer\.clip_norm"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, r"optimizer\.betas"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"max_steps": 0}, "max_steps: got 0"),
        ({"stream": {"prefetch_batches": 0}}, r"stream\.prefetch_batches"),
        ({"checkpoint": {"keep_last": 0}}, r"checkpoint\.keep_last"),
        ({"text": {"templates": ["a video"]}}, r"\{label\} in it"),
        ({"objective": {"preset": "upstream_literal"}}, r"model\.projector\.kind"),
        ({"objective": {"text": 0.0}, "checkpoint": {"best_by": "text_to_video"}}, r"checkpoint\.best_by"),
        ({"no_such_key": 1}, "no_such_key is not a known key"),
        ({"epochs": "many"}, "epochs='many'"),
    ],
)
def test_what_is_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(TrainConfig, BASE | change, origin="x.yaml")
