"""A HierVL comes back from its checkpoint as it was."""

from dataclasses import replace

import pytest
import torch

from hvlm.errors import UserError
from pipelines.evaluation.hiervl import checkpoint
from pipelines.evaluation.hiervl.checkpoint import load_hiervl
from pipelines.training.checkpoints import (
    CheckpointContent,
    find_checkpoint,
    read_info,
    read_model_state,
    save_checkpoint,
)
from tests.pipelines.evaluation.planted_store import CLIP


def _saved(uri, output, section="model", **changes):
    info = read_info(uri)
    info = replace(info, config=info.config | {section: info.config[section] | changes})
    content = CheckpointContent(model=read_model_state(uri), trainer={}, info=info, metrics={}, score=None)
    return save_checkpoint(str(output), content).uri


def test_the_model_is_that_of_the_training(trained, tmp_path):
    uri = find_checkpoint(trained[1]).uri
    loaded = load_hiervl(uri)
    assert not loaded.model.training
    assert (loaded.sampling.num_clips, loaded.text_encoder, loaded.max_frames) == (4, CLIP, None)
    for name, value in read_model_state(uri).items():
        torch.testing.assert_close(loaded.model.state_dict()[name], value)
    with pytest.raises(UserError, match="another architecture"):
        load_hiervl(_saved(uri, tmp_path, dim=16))


def test_attention_takes_as_many_frames_as_it_was_shown(trained, tmp_path, monkeypatch):
    uri = find_checkpoint(trained[1]).uri
    clip = read_info(uri).config["model"]["clip"] | {"kind": "attention", "max_frames": 16}
    monkeypatch.setattr(checkpoint, "load_weights", lambda *_: None)  # these are of a mean
    assert load_hiervl(_saved(uri, tmp_path, clip=clip)).max_frames == 2


def test_texts_without_a_text_tower_are_refused(trained, tmp_path):
    imported = {"kind": "imported", "extractor": "words, one-hot"}
    uri = _saved(find_checkpoint(trained[1]).uri, tmp_path, section="text", encoder=imported)
    with pytest.raises(UserError, match="'words, one-hot'; expected a CLIP text tower"):
        load_hiervl(uri)
