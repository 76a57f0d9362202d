from collections.abc import Callable

import pytest
import torch

from pipelines.training.baselines.supervised import HIT_AT_1
from pipelines.training.checkpoints import load_model, read_model_state
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.registry import open_system
from pipelines.training.state import GradientCheck
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder, weights


@pytest.mark.parametrize("name", ["direct", "tsn"])
def test_a_training_learns_the_labels_and_its_backbone_can_be_evaluated(
    make_job: Callable[..., TrainJob], name: str
) -> None:
    """4 classes: chance is 1/4."""
    recorder = Recorder()
    outcome = train(make_job(name, epochs=12), RankContext(), recorder)
    assert recorder.metrics[outcome.step]["train/labels/hit_at_1"] > 0.6 and outcome.metrics[HIT_AT_1] > 0.5
    assert {"dev/loss/total", "dev/hidden/contrast_gap", "dev/hidden/unit_std"} <= outcome.metrics.keys()
    model, _ = load_model(str(outcome.checkpoint_uri))
    saved = read_model_state(str(outcome.checkpoint_uri))
    assert model.state_dict().keys() == {key.removeprefix("backbone.") for key in saved if not key.startswith("head.")}
    assert all(torch.equal(value, saved[f"backbone.{key}"]) for key, value in model.state_dict().items())


def test_a_killed_training_continues_as_if_nothing_had_happened(make_job: Callable[..., TrainJob]) -> None:
    """TSN draws its rows, so this is also about what is random."""
    whole = train(make_job("tsn-whole", epochs=3), RankContext(), Recorder())
    job = make_job("tsn-killed", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at=9))
    expected = weights(whole)
    assert all(
        torch.equal(value, expected[name]) for name, value in weights(train(job, RankContext(), Recorder())).items()
    )


def test_every_trainable_parameter_gets_a_gradient(make_job: Callable[..., TrainJob]) -> None:
    system = open_system(make_job("direct"), RankContext())
    model = system.build_model()
    check = GradientCheck(model, system.gradient_cycle)
    for each in system.passes(model, next(iter(system.stream(0, 1))), 0):
        each.total.backward()  # type: ignore[no-untyped-call]
    check.observe()
    assert system.score({HIT_AT_1: 0.5, "dev/hidden/contrast_gap": 0.1}) == 0.5
