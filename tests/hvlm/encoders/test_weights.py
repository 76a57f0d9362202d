import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hvlm.encoders.weights import file_sha256, load_strict, read_state_dict, weights_identity
from hvlm.errors import UserError


@pytest.fixture
def state():
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


def save_plain(state, path):
    torch.save(state, path)


def save_before_torch_1_6(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_checkpoint_of_a_distributed_run(state, path):
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)


@pytest.mark.parametrize("save", [save_plain, save_before_torch_1_6, save_checkpoint_of_a_distributed_run])
def test_reads_what_torch_saved(state, tmp_path, save):
    save(state, tmp_path / "w.pickle")
    read = read_state_dict(tmp_path / "w.pickle")
    assert set(read) == set(state) and all(torch.equal(read[key], state[key]) for key in state)


def test_reads_safetensors(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors")["weight"], state["weight"])


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    marker = str(tmp_path / "executed")
    torch.save({"weight": Payload(marker)}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        read_state_dict(tmp_path / "evil.pt")
    assert not os.path.exists(marker)


@pytest.mark.parametrize(
    ("name", "content"), [("a.pt", b""), ("b.pt", b"not weights"), ("c.safetensors", b"not weights either")]
)
def test_a_damaged_file_is_a_user_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="readable state dict"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("saved", [{"epoch": 3}, [torch.zeros(1)], {}])
def test_a_file_without_named_tensors_is_a_user_error(tmp_path, saved):
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(UserError, match="no mapping of names to tensors"):
        read_state_dict(tmp_path / "w.pt")


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="check the path"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="check the path"):
        file_sha256(tmp_path / "absent.pt")


def test_load_strict_puts_the_values_in(state):
    network = nn.Linear(3, 2)
    load_strict(network, {**state, "fc8.weight": torch.zeros(1)}, source="w", may_be_unused=("fc8.weight",))
    assert torch.equal(network.weight, state["weight"]) and torch.equal(network.bias, state["bias"])


def test_load_strict_names_missing_unknown_and_wrongly_shaped_keys():
    with pytest.raises(UserError) as caught:
        load_strict(nn.Linear(3, 2), {"weight": torch.zeros(3, 2), "head.bias": torch.zeros(1)}, source="w.pt")
    message = str(caught.value)
    assert "1 missing: bias" in message and "1 unknown: head.bias" in message
    assert "1 of another shape: weight (3, 2) for (2, 3)" in message


def test_sha256_is_of_the_content_and_follows_changes(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    assert weights_identity(path, 5) == {"sha256": hashlib.sha256(b"one").hexdigest()}
    path.write_bytes(b"three")
    assert file_sha256(path) == hashlib.sha256(b"three").hexdigest()
    assert weights_identity(None, 5) == {"random": True, "seed": 5}
