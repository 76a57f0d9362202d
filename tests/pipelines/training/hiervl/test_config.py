from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config, load_config
from pipelines.training.config import ImportedTextConfig
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.registry import TRAIN_CONFIG

ROOT = Path(__file__).parents[4]
BASE: dict[str, Any] = {
    "system": "hiervl",
    "store_uri": "s",
    "output_uri": "o",
    "text": {"encoder": {"kind": "clip", "model": "ViT-B-32", "pretrained": "random"}},
}


def test_the_example_loads_and_comes_back() -> None:
    config = load_config(TRAIN_CONFIG, str(ROOT / "jobs/configs/train_hiervl_smoke.yaml"))
    assert isinstance(config, HierVLTrainConfig)
    assert build_config(TRAIN_CONFIG, dump_config(config), origin="dump") == config


def test_a_preset_fills_in_the_method_and_leaves_the_sizes() -> None:
    config = build_config(TRAIN_CONFIG, BASE | {"preset": "avg", "model": {"dim": 32}}, origin="x")
    assert isinstance(config, HierVLTrainConfig)
    assert (config.model.aggregator.kind, config.model.dim, config.best_metric) == ("average", 32, "summary_mcq")
    same = {"preset": "avg", "model": {"aggregator": {"kind": "average"}}}
    assert build_config(TRAIN_CONFIG, BASE | same, origin="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": {}}, r"text\.encoder is missing; expected the keys of HierVLTrainConfig"),
        (
            {"text": {"encoder": {"kind": "imported", "extractor": "words"}, "lora": {"r": 4}}},
            r"text\.lora: got adapters beside imported text features",
        ),
        ({"text": BASE["text"] | {"lora": {"target_modules": ["in_proj"]}}}, r"text\.lora\.target_modules.*'in_proj'"),
        ({"objective": {}}, "objective is not a known key; expected the keys of HierVLTrainConfig"),
        ({"preset": "best"}, "preset='best'"),
        ({"preset": "sa", "model": {"aggregator": {"kind": "average"}}}, r"preset sa beside model\.aggregator\.kind"),
        ({"preset": "sa", "model": {"terms": {"summary_caption": False}}}, r"model\.terms\.summary_caption: got False"),
        ({"sampling": {"num_clips": 8}}, r"sampling\.num_clips: got 8; expected model\.aggregator\.num_clips, 16"),
        ({"model": {"clip": {"kind": "attention", "max_frames": 2}}}, r"sampling\.num_frames: got 4; expected at most"),
        ({"preset": "wo_joint"}, "start_checkpoint: got none"),
        ({"preset": "sa", "start_checkpoint": "c"}, "start_checkpoint: got c"),
        ({"checkpoint": {"best_by": "contrast_gap"}}, r"checkpoint\.best_by: got contrast_gap"),
        ({"batching": {"child_batch_size": 1}}, r"batching\.child_batch_size: got 1"),
        ({"batching": {"window": 0}}, r"batching\.window: got 0"),
        ({"batching": {"scene_bin_s": 0.0}}, r"batching\.scene_bin_s: got 0\.0"),
        ({"batching": {"scene_bin_s": 60.0}, "preset": "wo_hier"}, r"batching\.scene_bin_s: .*summaries as captions"),
        ({"batching": {"scene_bin_s": 60.0}, "model": {"ego_nce": {"tags": "none"}}}, r"ego_nce\.tags: got none with"),
        (
            {"batching": {"scene_bin_s": 60.0}, "optimizer": {"accumulate_steps": 2}},
            r"optimizer\.accumulate_steps: got 2 with batching\.scene_bin_s",
        ),
        (
            {"batching": {"parent_batch_size": 9}, "resources": {"num_workers": 2}},
            r"batching\.parent_batch_size: got 9",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(TRAIN_CONFIG, BASE | change, origin="x.yaml")


def test_texts_are_of_a_clip_model_or_imported() -> None:
    imported = BASE | {"text": {"encoder": {"kind": "imported", "extractor": "words"}}}
    config = build_config(TRAIN_CONFIG, imported, origin="x")
    assert isinstance(config, HierVLTrainConfig) and config.text.encoder == ImportedTextConfig(extractor="words")
    assert build_config(TRAIN_CONFIG, dump_config(config), origin="dump") == config
