"""The classifier of a supervised checkpoint gives the logits of the model that was trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from hvlm.data.crops import Rows
from pipelines.training.baselines.classifier import load_classifier
from pipelines.training.checkpoints import load_model, load_weights, read_model_state
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder


def test_the_logits_are_those_of_the_model(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = make_job("direct", max_steps=2)
    uri = str(train(job, RankContext(), Recorder()).checkpoint_uri)
    found = load_classifier(uri)
    assert found is not None and found.start is None and found.classes == ("jump", "run", "swim", "throw")
    system = open_system(job, RankContext())
    model = system.build_model()
    load_weights(model, read_model_state(uri), uri)
    batch = next(iter(system.stream(0, 1)))
    rows = Rows(batch.features_BTI, batch.times_BT, batch.mask_BT)
    with torch.inference_mode():
        logits_BC, _ = model.eval()(rows)
        _, levels = load_model(uri)[0].encode(*rows)
    for node, expected in zip(levels[-1].nodes_BLD[:, 0], logits_BC, strict=True):
        torch.testing.assert_close(torch.from_numpy(found.logits(node.numpy())), expected)
    alone = tmp_path / "alone"
    shutil.copytree(uri, alone)
    assert load_classifier(str(alone)) is None  # nobody knows its classes
    moco = str(train(make_job("moco", max_steps=1), RankContext(), Recorder()).checkpoint_uri)
    assert load_classifier(moco) is None
