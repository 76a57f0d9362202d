import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hvlm.encoders.clip_import import open_clip
from hvlm.encoders.clip_model import build_model, build_tokenizer, read_spec, weights_path
from hvlm.errors import UserError

TINY = "jobs/configs/models/tiny_clip.json"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model config of a few thousand parameters beside the token table, and a network of it."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("models") / "small.json"
    path.write_text(json.dumps(config))
    spec = read_spec(str(path), "random")
    return str(path), spec, build_model(spec, None, seed=1)


def edited(tmp_path, model, **changes):
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({**json.loads(Path(model).read_text()), **changes}))
    return str(path)


def test_the_tiny_model_of_the_demo():
    spec = read_spec(TINY, "random")
    assert (spec.name, spec.dim, spec.preprocessing.image_size) == ("tiny_clip", 128, 64)
    assert (spec.preprocessing.interpolation, spec.preprocessing.resize_mode) == ("bicubic", "shortest")


def test_preprocessing_of_a_json_file_wins_over_the_default(small, tmp_path):
    model, spec, _ = small
    assert spec.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    inner = json.loads(Path(model).read_text())
    path = tmp_path / "outer.json"
    path.write_text(json.dumps({"model_cfg": inner, "preprocess_cfg": {"mean": [0.5] * 3, "resize_mode": "squash"}}))
    changed = read_spec(str(path), "random").preprocessing
    assert (changed.mean, changed.std, changed.resize_mode) == ((0.5, 0.5, 0.5), spec.preprocessing.std, "squash")


def test_preprocessing_of_a_named_model_is_that_of_its_tag():
    assert read_spec("ViT-B-32", "laion2b_s34b_b79k").preprocessing.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert read_spec("ViT-L-14", "laion2b_s32b_b82k").preprocessing.mean == (0.5, 0.5, 0.5)
    siglip = read_spec("ViT-B-16-SigLIP", "webli").preprocessing
    assert (siglip.mean, siglip.resize_mode) == ((0.5, 0.5, 0.5), "squash")


def test_a_local_file_takes_the_preprocessing_that_the_published_tags_agree_on():
    assert read_spec("ViT-B-16-SigLIP", "file.pt").preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="set preprocess_tag to one of"):
        read_spec("ViT-L-14", "file.pt")
    assert read_spec("ViT-L-14", "file.pt", "laion2b_s32b_b82k").preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="preprocess_tag"):
        read_spec("ViT-L-14", "file.pt", "no_such_tag")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("ViT-B-33", "ViT-B-32"),
        ("hf-hub:somebody/model", "a model name of open_clip"),
        ("absent.json", "check the path"),
        ("coca_ViT-B-32", "CoCa"),
        ("roberta-ViT-B-32", "Hugging Face text tower"),
    ],
)
def test_models_that_cannot_run_are_refused(model, match):
    with pytest.raises(UserError, match=match):
        read_spec(model, "random")


def test_bad_json_is_refused(small, tmp_path):
    model = small[0]
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[1]")
    for changes, match in [
        ({"vision_cfg": {"image_sise": 32}}, "image_sise"),
        ({"vision_cfg": {"image_size": [32, 64]}}, "square images"),
    ]:
        with pytest.raises(UserError, match=match):
            read_spec(edited(tmp_path, model, **changes), "random")
    with pytest.raises(UserError, match="mend the JSON"):
        read_spec(str(tmp_path / "broken.json"), "random")
    with pytest.raises(UserError, match="without embed_dim, vision_cfg, text_cfg"):
        read_spec(str(tmp_path / "other.json"), "random")


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone(small):
    _, spec, network = small
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    again, other = build_model(spec, None, seed=1), build_model(spec, None, seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(again.visual.conv1.weight, network.visual.conv1.weight)
    assert not torch.equal(other.visual.conv1.weight, network.visual.conv1.weight)
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("name", ["w.pt", "checkpoint.pt", "w.safetensors"])
def test_a_local_file_gives_its_weights_back(small, tmp_path, name):
    model, spec, network = small
    path = tmp_path / name
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if name == "w.safetensors":
        save_file(state, path)
    else:
        torch.save(
            {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}
            if name == "checkpoint.pt"
            else state,
            path,
        )
    loaded = build_model(spec, weights_path(model, str(path)), seed=9)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_a_file_in_the_layout_of_one_module_loads_into_two_towers(small, tmp_path):
    model, _, network = small
    torch.save(network.state_dict(), tmp_path / "w.pt")
    spec = read_spec(edited(tmp_path, model, custom_text=True), "random")
    loaded = build_model(spec, tmp_path / "w.pt", seed=9)
    tokens = build_tokenizer(spec)(["a red square"])
    assert torch.equal(loaded.encode_text(tokens), network.encode_text(tokens))


def test_a_file_of_another_resolution_is_refused_not_resized(small, tmp_path):
    model, _, network = small
    torch.save(network.state_dict(), tmp_path / "w.pt")
    vision = {"image_size": 64, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
    spec = read_spec(edited(tmp_path, model, vision_cfg=vision), "random")
    with pytest.raises(UserError, match=r"visual.positional_embedding \(5, 32\) for \(17, 32\)"):
        build_model(spec, tmp_path / "w.pt", seed=0)


def test_weights_path_refuses_what_is_neither_tag_nor_file(small):
    assert weights_path("ViT-B-32", "random") is None
    with pytest.raises(UserError, match="laion2b_s34b_b79k"):
        weights_path("ViT-B-32", "laion3b")
    with pytest.raises(UserError, match="it has none"):
        weights_path(small[0], "openai")


def test_a_tag_trained_with_another_activation_is_refused():
    with pytest.raises(UserError, match="set model: ViT-B-32-quickgelu"):
        weights_path("ViT-B-32", "openai")


def test_a_tag_is_downloaded_and_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(
        open_clip, "download_pretrained", lambda config: str(tmp_path / config["hf_hub"].strip("/").replace("/", "_"))
    )
    assert "laion2b" in weights_path("ViT-B-32", "laion2b_s34b_b79k").name.lower()

    def offline(config):
        raise FileNotFoundError("Failed to download file: no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(UserError, match=r"tag 'laion2b_s34b_b79k' failed \(.*no route.*set pretrained: /path"):
        weights_path("ViT-B-32", "laion2b_s34b_b79k")


def test_a_tokenizer_that_needs_a_download_is_refused(small):
    assert build_tokenizer(small[1]).context_length == 12
    with pytest.raises(UserError, match="CLIP's own tokenizer"):
        build_tokenizer(read_spec("ViT-B-16-SigLIP", "random"))
