import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hvlm.data.batching import BatchingConfig
from hvlm.errors import UserError
from infra import storage
from infra.config_io import load_config
from infra.tracking import RunTracker, TrackingConfig
from pipelines.store.catalog import FeatureStore
from pipelines.training.config import CheckpointConfig, StreamConfig, TrainConfig
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.registry import TRAIN_CONFIG
from pipelines.training.system import RankContext
from tests.pipelines.training.world import CLIP, encode_text, make_store, silent

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


def test_the_first_start_fixes_the_values_before_any_checkpoint(make_config: MakeConfig) -> None:
    config = make_config()
    prepare(config, encode_text)
    assert not storage.exists(storage.join(config.output_uri, "checkpoints"))
    for change, name in (
        ({"seed": 9}, "seed"),
        ({"stream": StreamConfig(l2_normalise=True)}, r"stream\.l2_normalise"),
        ({"checkpoint": CheckpointConfig(best_by="contrast_gap")}, r"checkpoint\.best_by"),
    ):
        with pytest.raises(UserError, match=f"other values of {name};"):
            prepare(replace(config, **change), encode_text)
    prepare(replace(config, checkpoint=CheckpointConfig(best_by="text_to_video", every_steps=9)), encode_text)


def test_an_output_from_before_there_were_several_systems_or_parts_of_a_batch_goes_on(make_config: MakeConfig) -> None:
    config = make_config()
    prepare(config, encode_text)
    file = Path(config.output_uri, "data.json")
    record = json.loads(file.read_text())
    assert record["fixed"].pop("system") == "hierarchical_vlm"
    assert record["fixed"]["optimizer"].pop("accumulate_steps") == 1
    file.write_text(json.dumps(record))
    prepare(config, encode_text)
    record["fixed"]["system"] = "hiervl"
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="other values of system;"):
        prepare(config, encode_text)


def test_other_encoders_than_at_the_first_start_are_refused(make_config: MakeConfig) -> None:
    job, _ = prepare(make_config(encoders=("clip", "c3d")), encode_text)
    for names in (("clip",), ("c3d", "clip"), ("clip-00000000", "c3d")):
        with pytest.raises(UserError, match="encoders: got"):
            prepare(make_config(encoders=names), encode_text)
    exact = tuple(f"{name}-{fingerprint[:8]}" for name, fingerprint in job.encoders)
    for same in ((), ("clip", "c3d"), exact):
        assert prepare(make_config(encoders=same), encode_text)[0].encoders == job.encoders


def test_a_tracking_server_that_refuses_ends_the_run(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()

    def refuse(*arguments: object) -> None:
        raise MlflowException("no room")

    with monkeypatch.context() as patch:
        patch.setattr(RunTracker, "log_dataset", refuse)
        with pytest.raises(UserError, match=r"MLflow tracking: got .*no room"):
            prepare(config, encode_text)
    run_id = json.loads(storage.read_bytes(storage.join(config.output_uri, "run.json")))["run_id"]
    client = MlflowClient(str(config.tracking.uri))
    assert client.get_run(run_id).info.status == "FAILED"
    job, _ = prepare(config, encode_text)
    run = client.get_run(run_id)
    assert job.run_id == run_id and run.info.status == "RUNNING" and run.data.params["seed"] == "0"


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


def test_an_output_that_cannot_be_reached_is_named(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> bool:
        raise RuntimeError("no such endpoint")

    monkeypatch.setattr(storage, "exists", refuse)
    with pytest.raises(UserError, match="output_uri: got memory://b/out, which cannot be reached"):
        prepare(replace(make_config(), output_uri="memory://b/out"), encode_text)


@pytest.fixture
def upstream(repository: Path, tmp_path: Path, tracking: TrackingConfig) -> Callable[..., TrainConfig]:
    """Loads the README's config as its command does."""

    def load(store: str, *overrides: str) -> TrainConfig:
        encoder = f"text.encoder={{kind: clip, model: {CLIP.model}, pretrained: random}}"
        places = [f"store_uri={store}", f"output_uri={tmp_path / 'out'}", f"tracking.uri={tracking.uri}"]
        path = str(repository / "jobs/configs/train_upstream.yaml")
        return load_config(TRAIN_CONFIG, path, [*places, encoder, "batching.global_batch_size=2", *overrides])

    return load


def test_a_store_without_texts_names_overrides_that_work(upstream: Callable[..., TrainConfig], tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 12, metadata=silent)
    with pytest.raises(UserError, match="has a summary, caption or label") as caught:
        prepare(upstream(store), encode_text)
    overrides = caught.value.do.partition("train without text: ")[2].split()
    assert len(overrides) == 2
    assert prepare(upstream(store, *overrides), encode_text)[0].d_text is None


def test_a_store_without_one_of_the_encoders_names_the_override_that_works(
    upstream: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", 12, dims={"clip": 8})
    with pytest.raises(UserError, match=r"encoders: got c3d.*train without it: encoders=\[clip\]") as caught:
        prepare(upstream(store), encode_text)
    override = caught.value.do.rpartition(" ")[2]
    assert prepare(upstream(store, override), encode_text)[0].d_in == (8,)
