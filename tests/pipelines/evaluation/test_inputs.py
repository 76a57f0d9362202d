"""Wrong input of an evaluation: each is refused before Ray starts, with what to do."""

from dataclasses import asdict
from pathlib import Path

import pytest

from hvlm.errors import UserError
from infra.tracking import TrackingConfig
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.inputs import open_inputs
from pipelines.training.checkpoints import (
    CheckpointContent,
    CheckpointInfo,
    find_checkpoint,
    read_info,
    read_model_state,
    save_checkpoint,
)
from tests.pipelines.evaluation.planted_store import PlantedWorld, encoders, make_checkpoint, make_store


def _changed(planted, tmp_path: Path, state=None, **changes) -> str:
    """A copy of the planted checkpoint with other weights or another description."""
    uri = find_checkpoint(planted[1]).uri
    info = CheckpointInfo(**(asdict(read_info(uri)) | changes))
    content = CheckpointContent(model=state or read_model_state(uri), trainer={}, info=info, metrics={}, score=None)
    return save_checkpoint(str(tmp_path / "other"), content).uri


def test_good_inputs(planted):
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    assert inputs.run_id == inputs.info.run_id
    assert inputs.manifest.frame.height == 48
    assert inputs.output_uri == f"{planted[1]}/evaluation/step-000000002"


def test_a_training_of_another_system_is_refused(planted, tmp_path):
    uri = find_checkpoint(planted[1]).uri
    other = _changed(planted, tmp_path, config=read_info(uri).config | {"system": "hiervl"})
    with pytest.raises(UserError, match="a training of hiervl; expected one of hierarchical_vlm or supervised or moco"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=other))


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(UserError, match="complete checkpoint"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=str(tmp_path / "nothing")))


def test_features_of_another_width(planted, tmp_path):
    other = make_checkpoint(planted[0], tmp_path / "training")[1]
    # a checkpoint that claims another width than its store has: the model itself is built to match the claim
    from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
    from infra.config_io import build_config

    widths = (other.d_in[0] + 1, other.d_in[1])
    model = build_model(build_config(HierarchicalVLMConfig, other.config["model"], origin="test"), widths, other.d_text)
    uri = _changed(planted, tmp_path, model.state_dict(), d_in=widths)
    with pytest.raises(UserError, match="width"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=uri))


def test_encoder_that_the_store_does_not_have(planted, tmp_path):
    info = read_info(find_checkpoint(planted[1]).uri)
    encoders = tuple((name, "0" * 64) for name, _ in info.encoders)
    with pytest.raises(UserError, match="encoders"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=_changed(planted, tmp_path, encoders=encoders)))


def test_store_with_other_data_at_the_pinned_version(planted, tmp_path):
    with pytest.raises(UserError, match="manifest hash"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=_changed(planted, tmp_path, manifest_hash="f" * 64)))


def test_another_store_is_read_at_its_newest_version(planted, tmp_path):
    store = make_store(tmp_path / "store", num_videos=16)
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], store_uri=store))
    assert inputs.manifest.frame.height == 16
    assert inputs.manifest.store_uri == store
    assert inputs.num_excluded == 0
    own = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    assert (own.num_excluded, own.mark) == (None, "")
    assert inputs.output_uri == f"{own.output_uri}/store-{inputs.manifest.manifest_hash[:8]}"


def test_videos_that_the_training_read_are_left_out_of_another_store(planted, tmp_path):
    # blocks of four: 0-7 and 16-23 were train, 8-11 and 24-27 dev of the training
    store = make_store(tmp_path / "store", num_videos=16, splits=("val", "train", "train", "val"))
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], store_uri=store))
    assert inputs.num_excluded == 4
    val = inputs.manifest.frame.filter(inputs.manifest.frame["split"] == "val")
    assert sorted(val["video_id"]) == [f"clip-{i:03d}" for i in range(12, 16)]
    assert inputs.manifest.frame.height == 12  # probes may still be fitted on what the model has seen


def test_a_training_video_under_another_name_is_left_out_too(planted, tmp_path):
    world = PlantedWorld(tmp_path / "store")
    for index in (100, 101, 102):
        world.add(f"clip-{index}", split="val")
    world.videos["clip-100"] = ("clip-000:v1", world.videos["clip-100"][1])  # the content of a training video
    world.videos["clip-102"] = ("clip-001:v1+5ba75", world.videos["clip-102"][1])  # the annotated spans of one
    world.run(encoders())
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], store_uri=str(tmp_path / "store")))
    assert (inputs.manifest.frame["video_id"].to_list(), inputs.num_excluded) == (["clip-101"], 2)


def test_another_store_of_training_videos_only(planted, tmp_path):
    store = make_store(tmp_path / "store", num_videos=12, splits=("train", "dev", "val"))
    with pytest.raises(UserError, match="training read every video"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], store_uri=store))


def test_another_store_when_the_trainings_is_gone(planted, tmp_path):
    uri = _changed(planted, tmp_path, store_uri=str(tmp_path / "gone"))
    with pytest.raises(UserError, match="leave its training videos out"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=uri, store_uri=planted[0]))


def test_missing_store_and_split(planted):
    with pytest.raises(UserError, match="store_uri"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], store_uri="/nowhere/store"))
    with pytest.raises(UserError, match="'test', which has no samples"):
        open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], splits=("val", "test")))


def test_missing_run_and_run_without_checkpoint(planted, tmp_path):
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="run_id"):
        open_inputs(HierarchicalVLMEvaluateConfig(run_id="0123456789abcdef0123456789abcdef", tracking=tracking))
    from infra.tracking import open_run

    run = open_run(tracking, str(tmp_path / "run.json"))
    with pytest.raises(UserError, match="without a checkpoint"):
        open_inputs(HierarchicalVLMEvaluateConfig(run_id=run.run_id, tracking=tracking))


def test_checkpoint_is_found_by_its_run(planted):
    info = read_info(find_checkpoint(planted[1]).uri)
    tracking = TrackingConfig(uri=f"sqlite:///{planted[1]}/mlflow.db")
    inputs = open_inputs(HierarchicalVLMEvaluateConfig(run_id=info.run_id, tracking=tracking))
    assert inputs.info.run_id == info.run_id


def test_training_run_of_another_server_is_not_taken_for_one_here(planted, tmp_path):
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/other.db")
    assert open_inputs(HierarchicalVLMEvaluateConfig(checkpoint=planted[1], tracking=tracking)).run_id is None
