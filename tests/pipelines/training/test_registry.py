from collections.abc import Callable
from dataclasses import replace

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config
from pipelines.store.manifest import open_manifest
from pipelines.training.config import TrainConfig
from pipelines.training.hierarchical_vlm.system import HierarchicalVLMSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import TRAIN_CONFIG, open_system, prepare_system
from pipelines.training.system import RankContext
from tests.pipelines.training.world import encode_text


def test_a_file_that_names_no_system_trains_the_first_one(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    values = dump_config(config)
    assert values.pop("system") == "hierarchical_vlm"
    assert build_config(TRAIN_CONFIG, values, origin="x") == config
    with pytest.raises(UserError, match=r"x\.yaml, system: got hirvl; expected one of hierarchical_vlm, hiervl"):
        build_config(TRAIN_CONFIG, values | {"system": "hirvl"}, origin="x.yaml")


def test_errors_name_the_class_that_the_key_chose(make_config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(UserError, match="mispelled is not a known key; expected the keys of HierarchicalVLMTrainC"):
        build_config(TRAIN_CONFIG, dump_config(make_config()) | {"mispelled": 1}, origin="x.yaml")


def test_each_configuration_has_its_system(make_job: Callable[..., TrainJob], store: str) -> None:
    assert isinstance(open_system(make_job(), RankContext()), HierarchicalVLMSystem)
    prepared = prepare_system(make_job().config, open_manifest(store), encode_text)
    assert prepared.d_text == 8 and prepared.steps_per_epoch > 0


def test_a_configuration_of_no_system_is_refused(make_job: Callable[..., TrainJob], store: str) -> None:
    bare = TrainConfig(system="none", store_uri="s", output_uri="o")
    with pytest.raises(TypeError, match="no system trains a TrainConfig"):
        prepare_system(bare, open_manifest(store), encode_text)
    with pytest.raises(TypeError, match="no system trains a TrainConfig"):
        open_system(replace(make_job(), config=bare), RankContext())
