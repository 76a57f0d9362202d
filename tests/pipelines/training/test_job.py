import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hvlm.data.batching import BatchingConfig
from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.training.config import TrainConfig
from pipelines.training.job import TrainJob, prepare
from pipelines.training.loop import RankContext, train
from tests.pipelines.training.world import encode_text, make_store

MakeConfig = Callable[..., TrainConfig]


def test_a_job_pins_the_data_and_the_run_records_it(make_config: MakeConfig, store: str) -> None:
    job, tracker = prepare(make_config(encoders=("clip", "c3d")), encode_text)
    assert [name for name, _ in job.encoders] == ["clip", "c3d"] and job.d_in == (8, 6) and job.d_text == 8
    assert job.total_steps == 4 * job.steps_per_epoch
    run = MlflowClient(tracker.uri).get_run(tracker.run_id)
    assert run.data.params["batching.global_batch_size"] == "4"
    assert run.data.params["model.encoder.d_model"] == "16"
    assert run.data.tags["store.manifest_hash"] == job.manifest_hash
    assert len(run.data.tags["git.commit"]) == 40
    assert json.loads(run.inputs.dataset_inputs[0].dataset.source)["version"] == job.store_version
    assert FeatureStore.open(store).samples_version() == job.store_version


def test_a_restart_keeps_the_run_and_the_pinned_version(make_config: MakeConfig, tmp_path: Path) -> None:
    own = make_store(tmp_path / "own", 24)
    config = make_config(store_uri=own)
    first, _ = prepare(config, encode_text)
    FeatureStore.open(own).commit_samples(FeatureStore.open(own).samples().head(1), first.store_version)
    second, tracker = prepare(config, encode_text)
    assert second == first and tracker.resumed
    with pytest.raises(UserError, match=r"version 99.*on which"):
        prepare(replace(config, store_version=99), encode_text)


def test_a_store_that_changed_under_a_pinned_version_is_refused(make_job: Callable[..., TrainJob]) -> None:
    with pytest.raises(UserError, match="as when the training began"):
        replace(make_job(), manifest_hash="0" * 64).open_manifest()


def test_continuing_with_other_values_is_refused(make_config: MakeConfig) -> None:
    config = make_config(max_steps=2)
    train(prepare(config, encode_text)[0], RankContext(), None)
    assert not storage.exists(storage.join(config.output_uri, "checkpoints"))  # only rank 0 with a tracker saves
    job, tracker = prepare(config, encode_text)
    train(job, RankContext(), tracker)
    changed = replace(config, seed=9, batching=replace(config.batching, max_rows=7))
    with pytest.raises(UserError, match=r"other values of batching\.max_rows, seed"):
        prepare(changed, encode_text)
    prepare(replace(config, log_every_steps=7), encode_text)


def test_bad_input_says_what_to_do(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run jobs\.extract first"):
        prepare(make_config(store_uri=str(tmp_path / "nothing")), encode_text)
    with pytest.raises(UserError, match="encoders: got vjepa"):
        prepare(make_config(encoders=("vjepa",)), encode_text)
    with pytest.raises(UserError, match=r"batching\.global_batch_size: got 512; expected at most the \d+ training"):
        prepare(make_config("other", batching=BatchingConfig(global_batch_size=512)), encode_text)
    assert not (tmp_path / "other").exists()  # a start that failed pins nothing
    empty = str(tmp_path / "empty")
    FeatureStore.open(empty, create=True)
    with pytest.raises(UserError, match="without samples"):
        prepare(make_config("third", store_uri=empty), encode_text)
