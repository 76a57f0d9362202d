from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config, load_config
from pipelines.training.registry import TRAIN_CONFIG

ROOT = Path(__file__).parents[4]
BASE: dict[str, Any] = {"store_uri": "s", "output_uri": "o", "model": {"alignment": {"enabled": False}}}


@pytest.mark.parametrize("name", ["direct", "tsn", "moco", "finetuned"])
def test_the_examples_have_the_budget_of_the_demo(name: str) -> None:
    """Equal but for what is trained: else the table compares budgets."""
    demo, other = (
        dump_config(load_config(TRAIN_CONFIG, str(ROOT / f"jobs/configs/{file}.yaml")))
        for file in ("train_demo", f"train_{name}_demo")
    )
    shared = demo.keys() & other.keys() - {"system", "model", "output_uri", "tracking"}
    assert {"epochs", "max_steps", "batching", "optimizer", "store_uri", "encoders", "stream"} <= shared
    assert {key: other[key] for key in shared} == {key: demo[key] for key in shared}
    if name != "tsn":
        assert other["model"]["encoder"] == demo["model"]["encoder"]


def test_what_best_compares() -> None:
    configs = {name: build_config(TRAIN_CONFIG, BASE | {"system": name}, origin="x") for name in ("supervised", "moco")}
    assert {name: config.best_metric for name, config in configs.items()} == {
        "supervised": "label_hit_at_1",
        "moco": "contrast_gap",
    }


@pytest.mark.parametrize("system", ["supervised", "moco"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {}}, r"model\.alignment\.enabled: got True"),
        ({"model": {"alignment": {"enabled": False}, "cross_scale": True}}, r"model\.cross_scale: got True"),
        ({"model": {"alignment": {"enabled": False}, "num_classes": 3}}, r"model\.num_classes: got 3"),
        ({"checkpoint": {"best_by": "text_to_video"}}, r"checkpoint\.best_by: got text_to_video"),
        ({"batching": {"global_batch_size": 8}, "resources": {"num_workers": 3}}, r"every number of workers"),
        ({"objective": {}}, "objective is not a known key"),
    ],
)
def test_what_does_not_fit_is_refused(system: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(TRAIN_CONFIG, BASE | {"system": system} | change, origin="x.yaml")


def test_parts_of_a_step_would_move_the_queue_twice() -> None:
    with pytest.raises(UserError, match=r"optimizer\.accumulate_steps: got 2"):
        build_config(TRAIN_CONFIG, BASE | {"system": "moco", "optimizer": {"accumulate_steps": 2}}, origin="x.yaml")


def test_the_queue_holds_a_batch() -> None:
    with pytest.raises(UserError, match=r"moco\.queue_size: got 32; expected at least batching\.global_batch_size, 64"):
        build_config(TRAIN_CONFIG, BASE | {"system": "moco", "moco": {"queue_size": 32}}, origin="x.yaml")
