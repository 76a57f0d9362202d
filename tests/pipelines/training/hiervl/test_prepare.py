import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from hvlm.models.hiervl import ScheduleConfig
from pipelines.training.hiervl.config import HierVLTrainConfig, LevelBatchingConfig
from pipelines.training.prepare import prepare
from tests.pipelines.training.world import encode_text, make_store, silent

MakeConfig = Callable[..., HierVLTrainConfig]


def test_counts_are_in_the_run_and_what_is_missing_is_listed(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config()
    job, tracker = prepare(config, encode_text)
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    levels = json.loads(Path(config.output_uri, "levels.json").read_text())
    total = {
        name: sum(int(tags[f"{name}.{split}"]) for split in ("train", "dev"))
        for name in ("num_samples", "num_captions", "num_summaries", "num_without_captions", "num_without_summary")
    }
    assert len(levels["videos"]) == total["num_samples"]
    assert len(levels["without_captions"]) == total["num_without_captions"] > 0
    assert len(levels["without_summary"]) == total["num_without_summary"]
    assert total["num_summaries"] + total["num_without_summary"] == total["num_samples"]
    assert total["num_captions"] == 3 * (total["num_samples"] - total["num_without_captions"])
    assert "have no captions" in caplog.text and "levels.json" in caplog.text
    child = int(tags["num_captions.train"]) // 8
    assert job.steps_per_epoch == child + child // 2
    again, _ = prepare(config, encode_text)
    assert again == job


def test_every_summary_of_a_part_counts_and_those_without_captions_are_said(
    make_config: MakeConfig, parts_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_config().model
    config = make_config(store_uri=parts_store, model=replace(model, schedule=ScheduleConfig(kind="parent")))
    job, tracker = prepare(config, encode_text)
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    videos = json.loads(Path(config.output_uri, "levels.json").read_text())["videos"]
    of_splits = [int(tags[f"num_summaries.{split}"]) for split in ("train", "dev")]
    wholes = sum(int(key[-3:]) % 4 == 0 for key in videos)
    assert sum(of_splits) == 2 * len(videos) + wholes and job.steps_per_epoch == of_splits[0] // 4
    bare = sum(int(tags[f"num_summaries_without_captions.{split}"]) for split in ("train", "dev"))
    assert bare == sum(int(key[-3:]) % 6 == 0 for key in videos) > 0
    assert f"of {of_splits[0]} summaries cover no caption" in caplog.text


def test_an_epoch_of_one_level_alone(make_config: MakeConfig) -> None:
    model = make_config().model
    parent, tracker = prepare(
        make_config("parent", model=replace(model, schedule=ScheduleConfig(kind="parent"))), encode_text
    )
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    assert parent.steps_per_epoch == int(tags["num_summaries.train"]) // 4
    flat = replace(
        model,
        aggregator=replace(model.aggregator, kind="average"),
        schedule=ScheduleConfig(kind="child"),
        summaries_as_captions=True,
    )
    child, _ = prepare(make_config("flat", model=flat), encode_text)
    assert child.steps_per_epoch == (int(tags["num_captions.train"]) + int(tags["num_summaries.train"])) // 8


def test_too_few_samples_of_a_level_name_the_level(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batching\.parent_batch_size: got 64; expected at most the \d+ summaries"):
        prepare(make_config(batching=LevelBatchingConfig(child_batch_size=8, parent_batch_size=64)), encode_text)
    store = make_store(tmp_path / "silent", 12, metadata=silent)
    with pytest.raises(UserError, match="expected at most the 0 captions"):
        prepare(make_config(store_uri=store), encode_text)
