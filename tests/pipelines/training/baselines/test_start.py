"""Fine-tuning: the backbone is that of the trained model, the classifier is new, and only the same model fits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from hvlm.models.flat import FlatPoolingConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig
from hvlm.models.pyramid import PyramidConfig
from pipelines.training import start
from pipelines.training.baselines.config import SupervisedTrainConfig
from pipelines.training.baselines.start import load_backbone
from pipelines.training.checkpoints import load_model, read_model_state, weights_sha256
from pipelines.training.config import StreamConfig
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder
from tests.pipelines.training.world import encode_text, train_config

MakeConfig = Callable[..., SupervisedTrainConfig]


@pytest.fixture
def trained(make_config: MakeConfig, tmp_path: Path) -> str:
    """A checkpoint of HierarchicalVLM, with text, after two steps."""
    like = make_config("direct")
    config = train_config(like.store_uri, tmp_path / "trained", max_steps=2, tracking=like.tracking)
    return str(train(prepare(config, encode_text)[0], RankContext(), Recorder()).checkpoint_uri)


def fine_tuned(make_config: MakeConfig, start: str, **changes: Any) -> SupervisedTrainConfig:
    """Of the model of `trained`, without its text heads and with other dropout."""
    like = load_model(start)[0].config
    model = HierarchicalVLMConfig(
        encoder=replace(like.encoder, dropout=0.3),  # type: ignore[type-var]
        pyramid=like.pyramid,
        projector=like.projector,
        alignment=replace(like.alignment, enabled=False),
    )
    return make_config("direct", **({"start_checkpoint": start, "model": model, "max_steps": 3} | changes))


def test_the_backbone_comes_from_the_trained_model_and_is_trained_on(make_config: MakeConfig, trained: str) -> None:
    job, tracker = prepare(fine_tuned(make_config, trained))
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    assert tags["start.checkpoint"] == trained and tags["start.weights_sha256"] == weights_sha256(trained)
    assert tags["num_classes"] == "4"
    system = open_system(job, RankContext())
    model = system.build_model()
    new = {name: value.clone() for name, value in model.state_dict().items()}
    system.initialise(model)
    expected = read_model_state(trained)
    for name, value in model.state_dict().items():
        inner = name.removeprefix("backbone.")
        taken = inner.startswith(("encoder.", "pyramid."))
        assert torch.equal(value, expected[inner] if taken else new[name]), name
    saved = read_model_state(str(train(job, RankContext(), Recorder()).checkpoint_uri))
    moved = [name for name in expected if name.startswith(("encoder.layers", "pyramid."))]
    assert moved and all(not torch.equal(saved[f"backbone.{name}"], expected[name]) for name in moved)


def test_only_the_same_model_on_the_same_features_fits(make_config: MakeConfig, trained: str, tmp_path: Path) -> None:
    config = fine_tuned(make_config, trained)
    encoder = config.model.encoder
    other = replace(config.model, encoder=replace(encoder, num_heads=4))  # type: ignore[type-var]
    with pytest.raises(UserError, match=r"start_checkpoint .*got model\.encoder .*num_heads=2.*num_heads=4.*as here"):
        prepare(replace(config, model=other))
    for pyramid in (FlatPoolingConfig(kind="mean"), PyramidConfig(refine="ffn")):
        with pytest.raises(UserError, match=r"got model\.pyramid PyramidConfig"):
            prepare(replace(config, model=replace(config.model, pyramid=pyramid)))
    with pytest.raises(UserError, match="features of other encoders"):
        prepare(replace(config, encoders=("clip",)))
    with pytest.raises(UserError, match=r"got stream\.l2_normalise False"):
        prepare(replace(config, stream=StreamConfig(l2_normalise=True)))
    assert not load_backbone(torch.nn.Module(), str(tmp_path))  # type: ignore[arg-type]


def test_another_system_is_refused(make_config: MakeConfig, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = start.read_info(trained)
    monkeypatch.setattr(start, "read_info", lambda uri: replace(info, config=info.config | {"system": "hiervl"}))
    with pytest.raises(UserError, match="got a training of hiervl; expected hierarchical_vlm or supervised or moco"):
        prepare(fine_tuned(make_config, trained))
