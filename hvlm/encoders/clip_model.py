"""Finds an open_clip model's architecture, preprocessing and weights, and builds it on the CPU.

A model is a name that open_clip knows (`ViT-B-32`) or a JSON file: an open_clip model config, or the layout of an
`open_clip_config.json` with `model_cfg` and `preprocess_cfg`. Written for open_clip 3.3.
"""

import difflib
import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hvlm.encoders.clip_import import open_clip
from hvlm.encoders.weights import load_strict, read_state_dict
from hvlm.errors import UserError

log = logging.getLogger(__name__)

RANDOM = "random"
_PREPROCESSING = asdict(open_clip.transform.PreprocessCfg())


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a CLIP model wants its pixels: side in pixels, mean and std of RGB in [0, 1], and how frames are resized."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "squash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """An architecture (open_clip's model config) with its preprocessing; `name` is for people."""

    name: str
    architecture: dict[str, Any]
    preprocessing: Preprocessing

    @property
    def dim(self) -> int:
        """Width of image and text features."""
        return int(self.architecture["embed_dim"])


def read_spec(model: str, pretrained: str, preprocess_tag: str | None = None) -> ClipSpec:
    """Return architecture and preprocessing of a model, without building it.

    Preprocessing comes from the JSON file, or from the open_clip tag (`preprocess_tag`, else `pretrained`), or, for a
    local weights file, from the published tags of that model if they agree. `random` falls back to open_clip's default.

    Raises:
        UserError: unknown model or tag, bad JSON, or an architecture or preprocessing that this project does not run.
    """
    if model.endswith(".json"):
        architecture, overlay = _read_json(model)
        name = Path(model).stem
    else:
        name = model.replace("/", "-")
        architecture = _named_architecture(name)
        overlay = _named_preprocessing(name, pretrained, preprocess_tag)
    _check_architecture(model, architecture)
    fields = {**_PREPROCESSING, **{key: value for key, value in overlay.items() if value is not None}}
    return ClipSpec(name=name, architecture=architecture, preprocessing=_preprocessing(model, architecture, fields))


def weights_path(model: str, pretrained: str) -> Path | None:
    """Return the weights file of `pretrained`, downloaded into open_clip's cache if it is a tag; None for `random`.

    Raises:
        UserError: neither a tag of this model nor a file, a tag for another activation, or a failed download.
    """
    if pretrained == RANDOM:
        return None
    name = model.replace("/", "-")
    if model.endswith(".json") or not open_clip.is_pretrained_cfg(name, pretrained):
        return _local_file(name, pretrained)
    tag_config = open_clip.get_pretrained_cfg(name, pretrained)
    if bool(tag_config.get("quick_gelu", False)) != bool(open_clip.get_model_config(name).get("quick_gelu", False)):
        other = name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"
        # open_clip 3.3 only warns here, and the features are wrong.
        raise UserError(
            what="clip.model",
            got=f"{name} with pretrained: {pretrained}, which was trained with another activation",
            expected="a model whose quick_gelu agrees with the tag",
            do=f"set model: {other}",
        )
    log.info("weights of %s, tag %s: from open_clip's cache, or downloaded now", name, pretrained)
    try:
        return Path(open_clip.download_pretrained(tag_config))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            what=f"clip.pretrained of {name}",
            got=f"the download of tag '{pretrained}' failed ({_first_line(error)})",
            expected="a reachable model hub, or the weights on this machine",
            do="download the weights where there is a network and set pretrained: /path/to/the/file",
        ) from error


def build_model(spec: ClipSpec, weights: Path | None, seed: int) -> nn.Module:
    """Return the model on the CPU in float32 and eval mode, with the weights of the file, or random ones of `seed`.

    Raises:
        UserError: the file does not fit the architecture; every key that differs is named.
    """
    architecture = json.loads(json.dumps(spec.architecture))
    custom_text = architecture.pop("custom_text", False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**architecture)
    if weights is not None:
        state = _in_layout_of(network, read_state_dict(weights))
        load_strict(network, state, source=str(weights), may_be_unused=("text.transformer.embeddings.position_ids",))
    return network.eval().requires_grad_(False)


def build_tokenizer(spec: ClipSpec) -> Any:
    """Return CLIP's own byte-pair tokenizer with the model's context length.

    Raises:
        UserError: the model wants another tokenizer (a download from a model hub).
    """
    text_config = spec.architecture["text_cfg"]
    if text_config.get("hf_tokenizer_name"):
        raise UserError(
            what=f"the tokenizer of {spec.name}",
            got=text_config["hf_tokenizer_name"],
            expected="a model with CLIP's own tokenizer",
            do="use e.g. model: ViT-B-32 where captions are needed (image features work with this model too)",
        )
    length = int(text_config.get("context_length", 77))
    return open_clip.SimpleTokenizer(context_length=length, **text_config.get("tokenizer_kwargs", {}))


def _read_json(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    bad = partial(UserError, what="clip.model", expected="a JSON model config with embed_dim, vision_cfg and text_cfg")
    try:
        loaded = json.loads(Path(model).read_text(encoding="utf-8"))
    except OSError as error:
        raise bad(
            got=f"{model} ({error.strerror})", do="check the path (jobs/configs/models/ has an example)"
        ) from error
    except ValueError as error:
        raise bad(got=f"{model}: {error}", do="mend the JSON") from error
    outer = loaded if isinstance(loaded, dict) else {}
    architecture = outer.get("model_cfg", outer)
    overlay = outer.get("preprocess_cfg", {})
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture]
    if missing:
        raise bad(got=f"{model} without {', '.join(missing)}", do="start from jobs/configs/models/tiny_clip.json")
    unknown = sorted(set(overlay) - set(_PREPROCESSING))
    if unknown:
        raise bad(got=f"{model} with preprocess_cfg.{unknown[0]}", do=f"use {', '.join(_PREPROCESSING)}")
    return architecture, overlay


def _named_architecture(name: str) -> dict[str, Any]:
    architecture = None if ":" in name else open_clip.get_model_config(name)
    if architecture is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.3)
        raise UserError(
            what="clip.model",
            got=name,
            expected="a model name of open_clip, or the path of a JSON model config",
            do=f"use e.g. {', '.join(close) or 'ViT-B-32'}",
        )
    result: dict[str, Any] = architecture
    return result


def _named_preprocessing(name: str, pretrained: str, preprocess_tag: str | None) -> dict[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = preprocess_tag or (pretrained if open_clip.is_pretrained_cfg(name, pretrained) else "")
    if tag:
        if not open_clip.is_pretrained_cfg(name, tag):
            raise UserError(
                what="clip.preprocess_tag", got=tag, expected=f"one of {', '.join(tags)}", do=f"choose a tag of {name}"
            )
        return _preprocess_fields(open_clip.get_pretrained_cfg(name, tag))
    published = {json.dumps(_preprocess_fields(open_clip.get_pretrained_cfg(name, each))) for each in tags}
    if len(published) > 1 and pretrained != RANDOM:
        raise UserError(
            what="clip.preprocess_tag",
            got=f"none, and the published weights of {name} use {len(published)} kinds of mean, std or resizing",
            expected="the tag whose preprocessing the local file was trained with",
            do=f"set preprocess_tag to one of {', '.join(tags)}",
        )
    return dict(json.loads(published.pop())) if len(published) == 1 else {}


def _preprocess_fields(tag_config: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing part of a tag's entry; `size` stays with the architecture."""
    return {
        key: tag_config[key]
        for key in ("mean", "std", "interpolation", "resize_mode")
        if tag_config.get(key) is not None
    }


def _check_architecture(model: str, architecture: dict[str, Any]) -> None:
    kind = "multimodal_cfg (CoCa)" if "multimodal_cfg" in architecture else ""
    if architecture["text_cfg"].get("hf_model_name"):
        kind = "a Hugging Face text tower"
    if kind:
        raise UserError(
            what="clip.model", got=f"{model} with {kind}", expected="a two-tower CLIP model", do="use e.g. ViT-B-32"
        )
    try:
        open_clip.CLIPVisionCfg(**architecture["vision_cfg"])
        open_clip.CLIPTextCfg(**architecture["text_cfg"])
    except TypeError as error:
        raise UserError(
            what="clip.model",
            got=f"{model}: {_first_line(error)}",
            expected="the keys of open_clip's CLIPVisionCfg and CLIPTextCfg",
            do="mend the JSON",
        ) from error


def _preprocessing(model: str, architecture: dict[str, Any], fields: dict[str, Any]) -> Preprocessing:
    size = open_clip.CLIPVisionCfg(**architecture["vision_cfg"]).image_size
    height, width = (size, size) if isinstance(size, int) else size
    known = fields["interpolation"] in ("bicubic", "bilinear") and fields["resize_mode"] in ("shortest", "squash")
    if height != width or not known:
        raise UserError(
            what="clip.model",
            got=f"{model} with {height}x{width} px, {fields['interpolation']}, {fields['resize_mode']}",
            expected="square images, bicubic or bilinear, resize mode shortest or squash",
            do="choose another model",
        )
    mean, std = (
        (value,) * 3 if isinstance(value, int | float) else tuple(value) for value in (fields["mean"], fields["std"])
    )
    return Preprocessing(
        image_size=height, mean=mean, std=std, interpolation=fields["interpolation"], resize_mode=fields["resize_mode"]
    )


def _local_file(name: str, pretrained: str) -> Path:
    path = Path(pretrained)
    if not path.is_file():
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise UserError(
            what="clip.pretrained",
            got=pretrained,
            expected=f"'random', an existing weights file, or a tag of {name}: {', '.join(tags) or 'it has none'}",
            do="check the path or the tag",
        )
    return path


def _in_layout_of(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The lossless renamings of open_clip's own loader; it also resizes position embeddings, which is refused here."""
    state = open_clip.convert.convert_state_dict(network, state)
    if "positional_embedding" in state and not hasattr(network, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        parameter = getattr(network, key, None)
        if key in state and parameter is not None and state[key].numel() == parameter.numel():
            state[key] = state[key].reshape(parameter.shape)
    return state


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
