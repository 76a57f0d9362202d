from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, load_config, load_yaml
from pipelines.science.config import METHODS, ScienceConfig

FILE = "jobs/configs/science.yaml"


def test_the_example_has_every_method_and_five_seeds() -> None:
    config = load_config(ScienceConfig, FILE)
    assert {name for stage in config.stages.values() for name in stage.methods} > set(METHODS)
    assert config.seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0]}, "2 or more different numbers"),
        ({"seeds": [1, 1]}, "2 or more different numbers"),
        ({"stages": {"one": {"methods": {"sa": {}}}}}, "among them sa, avg"),
        ({"stages": {"one": {"methods": {name: {} for name in METHODS}}, "two": {"methods": {"sa": {}}}}}, "each once"),
        ({"stages": {"one": {"methods": {name: {} for name in METHODS}, "seeds": [0, 7]}}}, r"got \[7\]"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(ScienceConfig, load_yaml(FILE) | changes, origin="test")
