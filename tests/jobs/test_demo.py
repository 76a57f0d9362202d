"""The demo's commands and its verdict; that they run is `make smoke`'s business."""

from pathlib import Path

from infra.config_io import load_config
from jobs.demo import demo_commands, verdict
from pipelines.evaluation.config import EvaluateConfig
from pipelines.extraction.config import ExtractConfig
from pipelines.training.config import TrainConfig


def test_every_command_is_one_that_its_job_accepts() -> None:
    render, extract, train, evaluate = demo_commands("demo", Path("/tmp/x"))
    assert [command[2] for command in (render, extract, train, evaluate)] == [
        "jobs.render",
        "jobs.extract",
        "jobs.train",
        "jobs.evaluate",
    ]
    for command, config_type in ((extract, ExtractConfig), (train, TrainConfig), (evaluate, EvaluateConfig)):
        load_config(config_type, command[4], command[5:])


def test_the_steps_hand_their_output_on() -> None:
    render, extract, train, evaluate = (" ".join(command) for command in demo_commands("smoke", Path("/r")))
    assert "output_path=/r/smoke" in render and "source.uri=/r/smoke/videos" in extract
    assert "store_uri=/r/smoke/store" in extract and "store_uri=/r/smoke/store" in train
    assert "output_uri=/r/smoke/training" in train and "checkpoint=/r/smoke/training" in evaluate


def test_the_verdict_says_so_when_training_did_not_pay() -> None:
    def row(beats: bool | None, headline: bool = True) -> dict[str, object]:
        return {"name": "m", "headline": headline, "beats_raw": beats}

    assert "beats the raw features on 2 of 3" in verdict([row(True), row(True), row(False), row(None)])
    assert "DOES NOT BEAT" in verdict([row(True), row(False), row(True, headline=False)])
