"""The benchmark in its reduced form: one seed, a smaller world, fewer steps, no Ray. `make science` is the whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.hiervl import HierVL
from hvlm.synthetic.planted_files import text_vectors
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy
from infra.config_io import build_config, dump_config, load_config, load_yaml
from infra.tracking import TrackingConfig
from pipelines.science.measure import ModelEmbedder, measure
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.registry import TRAIN_CONFIG, open_system
from pipelines.training.system import RankContext


@pytest.fixture
def make_config(small_store: str, tracking: TrackingConfig, tmp_path: Path) -> Callable[..., HierVLTrainConfig]:
    """The benchmark's training, in fewer steps that change between the levels."""

    def make(preset: str, steps: int) -> HierVLTrainConfig:
        changes = [f"preset={preset}", f"store_uri={small_store}", f"output_uri={tmp_path / preset}"]
        changes += [f"max_steps={steps}", f"checkpoint.every_steps={steps}", "model.schedule.child_steps=1"]
        config = load_config(TRAIN_CONFIG, "jobs/configs/train_science.yaml", changes)
        assert isinstance(config, HierVLTrainConfig)
        return replace(config, tracking=tracking)

    return make


def trained(config: HierVLTrainConfig, world: PlantedHierarchyConfig) -> dict[str, float]:
    job, tracker = prepare(config)
    outcome = train(job, RankContext(), tracker)
    found = measure(str(outcome.checkpoint_uri), planted_hierarchy(0, world))
    return {name: each.accuracy for name, each in found.items()}


def test_order_is_learned_from_summaries_by_self_attention_alone(
    make_config: Callable[..., HierVLTrainConfig], small_world: PlantedHierarchyConfig
) -> None:
    """Measured with 300 and 300 steps: order .866 and .506, easy .835 and .550."""
    with_order = trained(make_config("sa", 260), small_world)
    without = trained(make_config("avg", 140), small_world)
    assert with_order["planted/seen/order"] > 0.7
    assert with_order["planted/seen/shuffle"] > with_order["planted/seen/shuffle_wrong"] + 0.1
    assert without["planted/seen/order"] == pytest.approx(0.5, abs=0.1)
    assert without["planted/seen/shuffle"] == pytest.approx(0.2, abs=1e-9)
    for found in (with_order, without):
        assert found["planted/seen/easy"] > 0.3 and found["planted/seen/clip40"] > 0.3


def test_what_is_measured_is_what_a_training_reads(
    make_config: Callable[..., HierVLTrainConfig], small_world: PlantedHierarchyConfig
) -> None:
    """Videos and texts through the store's reader give the vectors of the benchmark's own embedder."""
    job, _ = prepare(make_config("sa", 1))
    system = open_system(job, RankContext())
    assert isinstance(system, HierVLSystem)
    torch.manual_seed(0)
    model = system.build_model().eval()
    assert isinstance(model, HierVL)
    dev = planted_hierarchy(0, small_world).dev
    part = system.dev.parent(system.dev.parent_samples(), None)
    place = [system.dev.keys.index(video_id) for video_id in dev.ids]
    with torch.no_grad():
        output = model(part.batch, "parent")
    embedder = ModelEmbedder(model)
    expected = torch.nn.functional.normalize(output.video_VE, dim=-1).numpy()[place]
    np.testing.assert_allclose(embedder.videos(dev.features_VCD), expected, atol=1e-6)
    summaries = torch.nn.functional.normalize(output.summary_VE, dim=-1).numpy()[place]
    vectors_NX = text_vectors(dev.summaries_V2, small_world)
    np.testing.assert_allclose(embedder.texts(vectors_NX), summaries, atol=1e-6)


def test_a_checkpoint_of_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = build_config(TRAIN_CONFIG, load_yaml("jobs/configs/train_smoke.yaml"), origin="smoke")
    info = SimpleNamespace(config=dump_config(other))
    monkeypatch.setattr("pipelines.science.measure.read_info", lambda uri: info)
    with pytest.raises(UserError, match="a training of hierarchical_vlm"):
        measure("c", planted_hierarchy(0, PlantedHierarchyConfig(num_train=1, num_dev=0, num_test_seen=0)))
