"""Adapters in the text tower: they change nothing at first, the tower never, and they load into no other one."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hvlm.encoders.config import ClipConfig, LoraConfig
from hvlm.encoders.text import load_text_encoder, load_text_network
from hvlm.encoders.text_lora import LoraTextTower, SplitAttention, load_lora_text_tower
from hvlm.errors import UserError

CLIP = ClipConfig(model="jobs/configs/models/tiny_clip.json", pretrained="random")
EVERY = LoraConfig(r=2, target_modules=("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"))
TEXTS = ["a red square moves left", "a blue circle grows", "dog"]


def hashes(module):
    """Of every parameter and buffer, by name."""
    return {name: hashlib.sha256(value.numpy()).hexdigest() for name, value in module.network.state_dict().items()}


def trained(tower, tokens, num_steps=2):
    """Take steps that move every adapter: B at the first, A from the second on."""
    parameters = [each for each in tower.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.02)
    for _ in range(num_steps):
        optimizer.zero_grad()
        tower(tokens).square().sum().backward()
        optimizer.step()
    return tower


@pytest.fixture(scope="module")
def tokens():
    return torch.from_numpy(load_text_encoder(CLIP, "cpu").tokenizer.tokens(TEXTS))


@pytest.mark.parametrize("per_head", [False, True])
def test_the_split_attention_gives_what_torchs_gives(per_head):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)
    x_BLW = torch.randn(3, 5, 8)
    mask = torch.full((5, 5), float("-inf")).triu(1)
    if per_head:  # of padding: (B * heads, L, L)
        mask = mask + torch.randn(6, 5, 5)
    with torch.no_grad():
        expected = attention(x_BLW, x_BLW, x_BLW, need_weights=False, attn_mask=mask)[0]
        got = SplitAttention(attention)(x_BLW, x_BLW, x_BLW, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("custom_text", [False, True])
def test_new_adapters_leave_the_features_as_they_are(tokens, tmp_path, custom_text):
    model = json.loads(Path(CLIP.model).read_text())
    model["model_cfg"]["custom_text"] = custom_text
    (tmp_path / "clip.json").write_text(json.dumps(model))
    clip = replace(CLIP, model=str(tmp_path / "clip.json"))
    tower = load_lora_text_tower(clip, EVERY)
    assert tower.dim == 128
    expected = load_text_encoder(clip, "cpu").encode_text(TEXTS)
    with torch.no_grad():
        np.testing.assert_allclose(tower(tokens).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_training_changes_all_adapters_and_no_bit_of_the_tower(tokens):
    torch.manual_seed(0)
    tower = load_lora_text_tower(CLIP, EVERY)
    learnt = {name for name, each in tower.network.named_parameters() if each.requires_grad}
    assert len(learnt) == 2 * 6 * 2 and all(".lora_A." in name or ".lora_B." in name for name in learnt)
    before, features = hashes(tower), tower(tokens).detach()
    trained(tower, tokens)
    after = hashes(tower)
    assert {name for name in before if before[name] != after[name]} == learnt
    assert (tower(tokens) - features).abs().max() > 1e-3


def test_the_state_is_the_adapters_and_loads_into_the_same_tower_alone(tokens):
    torch.manual_seed(0)
    tower = trained(load_lora_text_tower(CLIP, LoraConfig()), tokens)
    state = {name: value.clone() for name, value in tower.state_dict().items()}
    assert sum(value.numel() for value in state.values()) == 2 * 2 * (2 * 64 * 8) + 32  # q and v of two blocks, rank 8
    again = load_lora_text_tower(CLIP, LoraConfig())
    assert again.load_state_dict(state) == ([], [])
    assert torch.equal(again(tokens), tower(tokens))
    with pytest.raises(UserError, match=r"text\.encoder: got weights \w{12}; expected weights \w{12}, on which"):
        load_lora_text_tower(replace(CLIP, seed=1), LoraConfig()).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key.*base_sha256"):
        again.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_lora_text_tower(CLIP, LoraConfig(r=4)).load_state_dict(state)


def test_dropout_and_scale_reach_the_adapters(tokens):
    torch.manual_seed(0)
    tower = trained(load_lora_text_tower(CLIP, LoraConfig(lora_dropout=0.5)), tokens)
    assert not torch.equal(tower.train()(tokens), tower(tokens))
    still = tower.eval()(tokens)
    assert torch.equal(still, tower(tokens))
    louder = load_lora_text_tower(CLIP, LoraConfig(lora_alpha=16))
    louder.load_state_dict(tower.state_dict())
    assert (louder.eval()(tokens) - still).abs().max() > 1e-4


def test_a_tower_without_such_layers_is_refused():
    network, _ = load_text_network(CLIP)
    with pytest.raises(UserError, match=r"lora\.target_modules: got q_proj, v_proj; expected layers .*: c_fc"):
        LoraTextTower(network.transformer.resblocks[0].mlp, 128, LoraConfig())
