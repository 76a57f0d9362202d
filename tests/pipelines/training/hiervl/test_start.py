from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from hvlm.models.hiervl import HierVL, with_preset
from pipelines.training.checkpoints import read_model_state, weights_sha256
from pipelines.training.config import StreamConfig
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.hiervl.start import load_child_only, pin_child_only
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder
from tests.pipelines.training.world import encode_text

MakeConfig = Callable[..., HierVLTrainConfig]


@pytest.fixture
def child_only(make_config: MakeConfig) -> Any:
    """The outcome of a child-only training of two steps."""
    config = make_config("child", max_steps=2)
    config = replace(config, preset="child_only", model=with_preset(config.model, "child_only"))
    return train(prepare(config, encode_text)[0], RankContext(), Recorder())


def after(make_config: MakeConfig, start: str, name: str = "joined", **changes: Any) -> HierVLTrainConfig:
    model = with_preset(make_config().model, "wo_joint")
    return make_config(name, preset="wo_joint", start_checkpoint=start, model=changes.pop("model", model), **changes)


def test_encoders_come_from_the_child_only_training_and_the_run_says_so(
    make_config: MakeConfig, child_only: Any
) -> None:
    config = after(make_config, str(Path(child_only.checkpoint_uri).parents[1]), max_steps=2)
    job, tracker = prepare(config, encode_text)
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    assert tags["start.checkpoint"] == child_only.checkpoint_uri and tags["start.run_id"]
    assert tags["start.weights_sha256"] == weights_sha256(child_only.checkpoint_uri)
    system = open_system(job, RankContext())
    model = system.build_model()
    new = {name: value.clone() for name, value in model.state_dict().items()}
    system.initialise(model)
    expected = read_model_state(child_only.checkpoint_uri)
    for name, value in model.state_dict().items():
        assert torch.equal(value, new[name] if name.startswith("aggregator.") else expected[name]), name
    assert train(job, RankContext(), Recorder()).step == 2


def test_only_a_child_only_training_of_the_same_features_fits(make_config: MakeConfig, child_only: Any) -> None:
    other = train(prepare(make_config("other", max_steps=1), encode_text)[0], RankContext(), Recorder())
    with pytest.raises(UserError, match=r"start_checkpoint .*got a training of alternate; expected a child-only one"):
        prepare(after(make_config, other.checkpoint_uri), encode_text)
    with pytest.raises(UserError, match="features of other encoders"):
        prepare(after(make_config, child_only.checkpoint_uri, encoders=("clip",)), encode_text)
    flat = make_config("flat", max_steps=1, preset="wo_hier", model=with_preset(make_config().model, "wo_hier"))
    trained = train(prepare(flat, encode_text)[0], RankContext(), Recorder())
    with pytest.raises(UserError, match="got a training of clips with summaries"):
        prepare(after(make_config, trained.checkpoint_uri), encode_text)
    raw = StreamConfig(l2_normalise=not StreamConfig().l2_normalise)
    with pytest.raises(UserError, match=r"got stream\.l2_normalise"):
        prepare(after(make_config, child_only.checkpoint_uri, stream=raw), encode_text)
    with pytest.raises(UserError, match="a complete checkpoint"):
        prepare(after(make_config, "/nowhere"), encode_text)


def test_weights_that_changed_or_do_not_fit_are_refused(make_config: MakeConfig, child_only: Any) -> None:
    wide = after(make_config, child_only.checkpoint_uri, "wide")
    wide = replace(wide, model=replace(wide.model, clip=replace(wide.model.clip, hidden=24)))
    system = open_system(prepare(wide, encode_text)[0], RankContext())
    with pytest.raises(UserError, match=r"model\.clip"):
        system.initialise(system.build_model())
    config = after(make_config, child_only.checkpoint_uri)
    system = open_system(prepare(config, encode_text)[0], RankContext())
    file = Path(config.output_uri, "start.json")
    file.write_text(file.read_text().replace(weights_sha256(child_only.checkpoint_uri), "0" * 64))
    with pytest.raises(UserError, match="as at the first start"):
        system.initialise(system.build_model())


def test_without_a_start_nothing_is_written_or_loaded(make_config: MakeConfig, tmp_path: Path) -> None:
    assert pin_child_only(make_config(), None, 8) == {}  # type: ignore[arg-type]
    load_child_only(HierVL(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity()), str(tmp_path))
