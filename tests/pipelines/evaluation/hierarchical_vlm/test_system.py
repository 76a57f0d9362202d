"""HierarchicalVLM as the evaluation sees it: its text tower, and what it says of videos that training read."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hvlm.errors import UserError
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.hierarchical_vlm.system import HierarchicalVLMEvaluation
from pipelines.evaluation.inputs import EvaluationInputs, open_inputs
from pipelines.evaluation.metric_table import beats_raw
from pipelines.training.checkpoints import (
    CheckpointContent,
    find_checkpoint,
    read_info,
    read_model_state,
    save_checkpoint,
)
from tests.pipelines.evaluation.made_records import record
from tests.pipelines.evaluation.planted_store import CLIP, make_checkpoint

ROWS = np.eye(3)


def _records(**counts):
    return [record(f"{split}{i}", ROWS, split=split) for split, count in counts.items() for i in range(count)]


@pytest.mark.parametrize(("mark", "held_out"), [("", False), ("store-0123abcd", True)])
def test_what_stays_on_train_says_that_the_model_has_seen_it(mark, held_out):
    records = [*_records(train=5, dev=2, val=3)]
    inputs = SimpleNamespace(mark=mark, seen=lambda split: EvaluationInputs.seen(inputs, split))
    evaluation = HierarchicalVLMEvaluation(HierarchicalVLMEvaluateConfig(checkpoint="x"), inputs, None, "no text")
    result = evaluation.measure_split(None, (records, {}, "train"))
    assert {row.name.split("/")[1] for row in result.rows} == {"frame", "level_1"}
    assert {row.held_out for row in result.rows} == {held_out}
    assert all(("not held out" in row.note) != held_out for row in result.rows)
    assert held_out or all(beats_raw(row) is None for row in result.rows)
    assert [absent.metrics for absent in result.absent][:2] == [
        "train/video/linear_probe/*, train/video/knn/*",
        "train/frame/localisation/*, train/pyramid/localisation/*",
    ]


def _open(config):
    return HierarchicalVLMEvaluation.open(config, open_inputs(config))


def test_weights_of_another_architecture(planted, tmp_path):
    uri = find_checkpoint(planted[1]).uri
    state = read_model_state(uri) | {"encoder.something.weight": torch.zeros(3)}
    content = CheckpointContent(model=state, trainer={}, info=read_info(uri), metrics={}, score=None)
    with pytest.raises(UserError, match="another architecture"):
        _open(HierarchicalVLMEvaluateConfig(checkpoint=save_checkpoint(str(tmp_path), content).uri))


def test_the_text_tower_is_that_of_the_training(planted):
    opened = _open(HierarchicalVLMEvaluateConfig(checkpoint=planted[1]))
    assert opened.clip[1] == "clip"
    assert opened.facts == {"raw_retrieval_is_chance": True, "video_embedding": "top"}


def test_model_without_text_keeps_raw_retrieval_when_the_encoder_is_named(planted, tmp_path):
    make_checkpoint(planted[0], tmp_path / "silent", aligned=False)
    without = _open(HierarchicalVLMEvaluateConfig(checkpoint=str(tmp_path / "silent")))
    assert without.clip is None
    assert "text_encoder" in without.no_text
    named = _open(HierarchicalVLMEvaluateConfig(checkpoint=str(tmp_path / "silent"), text_encoder=CLIP))
    assert named.clip[1] == "clip"
    wrong = _open(
        HierarchicalVLMEvaluateConfig(checkpoint=str(tmp_path / "silent"), text_encoder=replace(CLIP, seed=7))
    )
    assert wrong.clip is None
    assert "weights" in wrong.no_text


def test_damaged_checkpoint(planted, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(find_checkpoint(planted[1]).uri, folder)
    marker = json.loads((folder / "complete.json").read_text())
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert marker["step"] == 2
    with pytest.raises(UserError, match="sha256"):
        _open(HierarchicalVLMEvaluateConfig(checkpoint=str(folder)))
