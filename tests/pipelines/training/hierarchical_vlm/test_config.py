from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config, load_config
from pipelines.training.registry import TRAIN_CONFIG

ROOT = Path(__file__).parents[4]
BASE: dict[str, Any] = {
    "store_uri": "s",
    "output_uri": "o",
    "text": {"encoder": {"kind": "clip", "model": "ViT-B-32", "pretrained": "random"}},
}


@pytest.mark.parametrize("name", ["train_demo", "train_smoke", "train_upstream"])
def test_the_presets_load_and_come_back(name: str) -> None:
    config = load_config(TRAIN_CONFIG, str(ROOT / f"jobs/configs/{name}.yaml"))
    assert build_config(TRAIN_CONFIG, dump_config(config), origin="dump") == config


def test_best_is_never_a_raw_loss() -> None:
    assert build_config(TRAIN_CONFIG, BASE, origin="x").best_metric == "text_to_video"
    without = BASE | {"model": {"alignment": {"enabled": False}}, "objective": {}}
    assert build_config(TRAIN_CONFIG, without, origin="x").best_metric == "contrast_gap"
    assert not build_config(TRAIN_CONFIG, without, origin="x").uses_text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": {}}, r"text\.encoder: got none"),
        (
            {"batching": {"global_batch_size": 8}, "resources": {"num_workers": 3}},
            "every number of workers from 3 to 3",
        ),
        ({"batching": {"global_batch_size": 8}, "resources": {"num_workers": [2, 4]}}, "from 2 to 4"),
        ({"model": {"alignment": {"max_logit_scale": 0}}}, r"alignment\.max_logit_scale: got 0"),
        ({"text": {"templates": ["a video"]}}, r"\{label\} in it"),
        ({"objective": {"preset": "upstream_literal"}}, r"model\.projector\.kind"),
        ({"objective": {"text": 0.0}, "checkpoint": {"best_by": "text_to_video"}}, r"checkpoint\.best_by"),
    ],
)
def test_what_is_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(TRAIN_CONFIG, BASE | change, origin="x.yaml")
