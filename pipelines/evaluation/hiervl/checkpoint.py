"""A trained HierVL as its checkpoint describes it."""

from typing import NamedTuple

from hvlm.config import require
from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.encoders.config import ClipConfig
from hvlm.models.hiervl import HierVL, HierVLConfig, build_hiervl
from infra.config_io import build_config
from pipelines.training.checkpoints import INFO_FILE, load_weights, read_info, read_model_state


class LoadedHierVL(NamedTuple):
    """The model in evaluation mode, how clips and frames were drawn for it, and the encoder of its texts.

    `max_frames`: of a clip; None where there is no limit. Attention knows the positions that training showed it.
    """

    model: HierVL
    sampling: ParentSamplingConfig
    text_encoder: ClipConfig
    max_frames: int | None


def load_hiervl(uri: str, device: str = "cpu") -> LoadedHierVL:
    """Return the model of a checkpoint.

    Raises:
        UserError: damaged, of a newer format, or its weights do not fit the architecture its config names; it read
            texts whose encoder is not at hand.
    """
    info = read_info(uri)
    origin = f"{uri}/{INFO_FILE}"
    encoder = info.config["text"]["encoder"]
    require(
        encoder.get("kind") != "imported",
        what=f"{origin}, text.encoder",
        got=f"imported text features of '{encoder.get('extractor')}'",
        expected="a CLIP text tower: the questions of jobs.evaluate have texts of their own",
        do=f"read its dev metrics in the MLflow run {info.run_id}",
    )
    config = build_config(HierVLConfig, info.config["model"], origin=f"{origin}, model")
    model = build_hiervl(config, sum(info.d_in), info.d_text or 0)
    load_weights(model, read_model_state(uri), uri)
    sampling = build_config(ParentSamplingConfig, info.config["sampling"], origin=f"{origin}, sampling")
    return LoadedHierVL(
        model.to(device).eval(),
        sampling,
        build_config(ClipConfig, encoder, origin=f"{origin}, text"),
        None if config.clip.kind == "mean" else sampling.num_frames,
    )
