"""The demo's commands and its verdict; that they run is `make smoke`'s business."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from infra.config_io import load_config
from jobs.demo import demo_commands, verdict
from pipelines.evaluation.registry import EVALUATE_CONFIG
from pipelines.extraction.config import ExtractConfig
from pipelines.training.registry import TRAIN_CONFIG


def test_every_command_is_one_that_its_job_accepts() -> None:
    render, extract, train, evaluate = demo_commands("demo", Path("/tmp/x"))
    assert [command[2] for command in (render, extract, train, evaluate)] == [
        "jobs.render",
        "jobs.extract",
        "jobs.train",
        "jobs.evaluate",
    ]
    for command, config_type in ((extract, ExtractConfig), (train, TRAIN_CONFIG), (evaluate, EVALUATE_CONFIG)):
        load_config(config_type, command[4], command[5:])


def test_the_steps_hand_their_output_on() -> None:
    render, extract, train, evaluate = (" ".join(command) for command in demo_commands("smoke", Path("/r")))
    assert "output_path=/r/smoke" in render and "source.uri=/r/smoke/videos" in extract
    assert "store_uri=/r/smoke/store" in extract and "store_uri=/r/smoke/store" in train
    assert "output_uri=/r/smoke/training" in train and "checkpoint=/r/smoke/training" in evaluate


def _report(*, random_clip: bool = True, **groups: list[bool | None]) -> dict[str, object]:
    rows = [
        {"group": group, "headline": True, "beats_raw": beats} for group, marks in groups.items() for beats in marks
    ]
    hidden = {"group": "localisation", "headline": False, "beats_raw": True}
    return {"metrics": [*rows, hidden], "raw_retrieval_is_chance": random_clip}


def test_a_group_is_won_by_more_than_half_of_its_decided_rows() -> None:
    report = _report(
        consistency=[None, True, True],
        classification=[False, True],
        localisation=[False],
        retrieval=[True, True, False],
    )
    assert verdict(report) == (
        "the trained model beats the raw features in 2 of 4 groups: consistency, retrieval "
        "(raw retrieval is chance here: the CLIP weights are random)"
    )
    assert "chance" not in verdict(report | {"raw_retrieval_is_chance": False})


def test_many_rows_of_one_group_are_no_two_groups() -> None:
    said = verdict(_report(retrieval=[True] * 4, classification=[False, True], consistency=[None]))
    assert said.startswith(
        "THE TRAINED MODEL DOES NOT BEAT THE RAW FEATURES: it is ahead in 1 of 2 groups: retrieval ("
    )
    assert "in 0 of 1 groups; 2 are expected" in verdict(_report(classification=[False]))


def test_an_interrupted_demo_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    monkeypatch.setattr(sys, "argv", ["demo", "--smoke", "--root", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "jobs.demo")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("jobs.demo", run_name="__main__")
    assert stop.value.code == 130 and "run the same command again" in capsys.readouterr().err
