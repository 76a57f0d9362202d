import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from infra import storage
from infra.config_io import dump_config
from pipelines.training.checkpoints import (
    CheckpointContent,
    CheckpointInfo,
    discard_damaged,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_model,
    read_info,
    read_model_state,
    read_trainer_state,
    retain,
    save_checkpoint,
)

MODEL = HierarchicalVLMConfig(encoder=TemporalEncoderConfig(d_model=8, num_layers=1, num_heads=2, d_ff=16))


def content(step: int, score: float | None = None, model_config: HierarchicalVLMConfig = MODEL) -> CheckpointContent:
    torch.manual_seed(step)
    model = build_model(model_config, (4, 3), 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 4, 7), torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)).video_BE.sum().backward()
    optimizer.step()
    info = CheckpointInfo(
        config={"model": dump_config(MODEL)},
        encoders=(("clip", "f" * 64), ("c3d", "e" * 64)),
        d_in=(4, 3),
        d_text=5,
        store_uri="/store",
        store_version=2,
        manifest_hash="m" * 64,
        step=step,
        git_commit="abc",
        run_id="run",
    )
    trainer = {"optimizer": optimizer.state_dict(), "step": step}
    metrics = {"dev/a": 0.5, "bad": float("nan")}
    return CheckpointContent(model=model.state_dict(), trainer=trainer, info=info, metrics=metrics, score=score)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = content(3, 0.25)
    checkpoint = save_checkpoint(str(tmp_path), saved)
    assert (
        checkpoint
        == latest_checkpoint(str(tmp_path))
        == find_checkpoint(str(tmp_path))
        == find_checkpoint(checkpoint.uri)
    )
    assert checkpoint.metrics == {"dev/a": 0.5}
    assert read_info(checkpoint.uri) == saved.info
    model, info = load_model(checkpoint.uri)
    assert not model.training and info.d_in == (4, 3)
    assert all(torch.equal(value, saved.model[name]) for name, value in model.state_dict().items())
    assert not any(name.startswith("module.") for name in read_model_state(checkpoint.uri))
    state = read_trainer_state(checkpoint.uri)["optimizer"]
    original = saved.trainer["optimizer"]
    assert state["param_groups"] == original["param_groups"]
    assert all(torch.equal(state["state"][i]["exp_avg"], v["exp_avg"]) for i, v in original["state"].items())


@pytest.mark.parametrize("left_out", ["model.safetensors", "trainer_state.pt", "config.json", "complete.json"])
def test_a_half_written_checkpoint_is_never_taken(tmp_path: Path, left_out: str) -> None:
    good = save_checkpoint(str(tmp_path), content(1, 0.1))
    newer = save_checkpoint(str(tmp_path), content(2, 0.9))
    (Path(newer.uri) / left_out).unlink()
    assert latest_checkpoint(str(tmp_path)) == find_checkpoint(str(tmp_path)) == good
    with pytest.raises(UserError, match="a complete checkpoint"):
        find_checkpoint(newer.uri)


def test_a_cut_file_or_marker_is_never_taken(tmp_path: Path) -> None:
    good = save_checkpoint(str(tmp_path), content(1))
    for step, name in ((2, "model.safetensors"), (3, "complete.json")):
        file = Path(save_checkpoint(str(tmp_path), content(step)).uri) / name
        file.write_bytes(file.read_bytes()[:-9])
    assert list_checkpoints(str(tmp_path)) == [good]


def test_a_crash_while_writing_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save_checkpoint(str(tmp_path), content(1))
    for fail_at in range(4):
        calls = iter(range(10))
        import infra.storage as storage

        original = storage.atomic_write

        def failing(uri: str, data: bytes, fail_at: int = fail_at, calls=calls, original=original) -> None:
            if next(calls) == fail_at:
                raise OSError("killed")
            original(uri, data)

        with monkeypatch.context() as patch:
            patch.setattr("infra.storage.atomic_write", failing)
            with pytest.raises(OSError, match="killed"):
                save_checkpoint(str(tmp_path), content(2))
        assert latest_checkpoint(str(tmp_path)) == good


def test_damage_is_found_when_reading(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(str(tmp_path), content(1))
    file = Path(checkpoint.uri) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="sha256"):
        load_model(checkpoint.uri)


def test_damaged_ones_are_left_out_up_to_the_newest_intact_one(tmp_path: Path) -> None:
    discard_damaged(str(tmp_path))  # nothing there
    for step in (1, 2, 3):
        save_checkpoint(str(tmp_path), content(step))
    for step, name in ((2, "config.json"), (3, "trainer_state.pt")):
        file = tmp_path / f"checkpoints/step-{step:09d}" / name
        file.write_bytes(bytes(file.stat().st_size))
    discard_damaged(str(tmp_path))
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [1]
    file = tmp_path / "checkpoints/step-000000001/model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UserError, match="all damaged"):  # rather than begin anew in the same output
        discard_damaged(str(tmp_path))
    assert len(list_checkpoints(str(tmp_path))) == 1


def test_retain_removes_what_crashes_left(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(str(tmp_path), content(step))
    for step in (1, 3):
        (tmp_path / f"checkpoints/step-{step:09d}/complete.json").unlink()
    retain(str(tmp_path), 1)
    left = {path.parent.name for path in (tmp_path / "checkpoints").rglob("*.*") if path.is_file()}
    assert left == {"step-000000002", "step-000000003"}  # 3 may be in the making


def test_retain_keeps_a_checkpoint_whose_marker_is_only_listed_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(str(tmp_path), content(step))
    listed, late = storage.list_files, "step-000000001/complete.json"
    with monkeypatch.context() as patch:
        patch.setattr(
            storage, "list_files", lambda uri: {name: info for name, info in listed(uri).items() if name != late}
        )
        retain(str(tmp_path), 2)
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [1, 2]


def test_retain_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.9), (4, 0.2), (5, None), (6, 0.3)):
        save_checkpoint(str(tmp_path), content(step, score))
    assert [checkpoint.step for checkpoint in retain(str(tmp_path), 2)] == [1, 2, 4]
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [3, 5, 6]
    assert find_checkpoint(str(tmp_path), "best").step == 3
    assert find_checkpoint(str(tmp_path), "latest").step == 6


def test_another_architecture_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    wider = HierarchicalVLMConfig(encoder=TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=16))
    with pytest.raises(UserError, match="weights of another architecture"):
        load_model(save_checkpoint(str(tmp_path / "a"), content(1, model_config=wider)).uri)
    checkpoint = save_checkpoint(str(tmp_path / "b"), content(1))
    folder = Path(checkpoint.uri)
    info = json.loads((folder / "config.json").read_text()) | {"format_version": 99}
    (folder / "config.json").write_text(json.dumps(info))
    marker = json.loads((folder / "complete.json").read_text())
    import hashlib

    data = (folder / "config.json").read_bytes()
    marker["files"]["config.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "complete.json").write_text(json.dumps(marker))
    with pytest.raises(UserError, match="format_version: got 99"):
        load_model(checkpoint.uri)


def test_a_model_of_another_system_is_not_evaluated(tmp_path: Path) -> None:
    saved = content(1)
    info = replace(saved.info, config=saved.info.config | {"system": "hiervl"})
    checkpoint = save_checkpoint(str(tmp_path), replace(saved, info=info))
    with pytest.raises(
        UserError, match=r"a training of system hiervl; expected a training of hierarchical_vlm.*system: hiervl"
    ):
        load_model(checkpoint.uri)
    named = replace(saved, info=replace(info, config=info.config | {"system": "hierarchical_vlm"}))
    assert load_model(save_checkpoint(str(tmp_path / "named"), named).uri)[1] == named.info


def test_no_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    assert latest_checkpoint(str(tmp_path / "none")) is None
    with pytest.raises(UserError, match="train first"):
        find_checkpoint(str(tmp_path))
    shutil.rmtree(tmp_path)


def test_a_storage_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> bool:
        raise RuntimeError("no such endpoint")

    monkeypatch.setattr(storage, "exists", refuse)
    with pytest.raises(UserError, match="checkpoint: got memory://b/training, which cannot be reached"):
        find_checkpoint("memory://b/training")
