"""A trained HierVL as its checkpoint describes it."""

from typing import NamedTuple

from hvlm.data.hierarchy import ParentSamplingConfig
from hvlm.encoders.config import ClipConfig
from hvlm.errors import UserError
from hvlm.models.hiervl import HierVL, HierVLConfig
from infra.config_io import build_config
from pipelines.training.checkpoints import INFO_FILE, load_weights, read_info, read_model_state
from pipelines.training.hiervl.config import HierVLTextConfig
from pipelines.training.hiervl.model import build_model


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
            texts whose encoder is not at hand, or its adapters belong to another text tower.
    """
    info = read_info(uri)
    origin = f"{uri}/{INFO_FILE}"
    text = build_config(HierVLTextConfig, info.config["text"], origin=f"{origin}, text")
    if not isinstance(text.encoder, ClipConfig):
        raise UserError(
            what=f"{origin}, text.encoder",
            got=f"imported text features of '{text.encoder.extractor}'",
            expected="a CLIP text tower: the questions of jobs.evaluate have texts of their own",
            do=f"read its dev metrics in the MLflow run {info.run_id}",
        )
    config = build_config(HierVLConfig, info.config["model"], origin=f"{origin}, model")
    model = build_model(config, text, sum(info.d_in), info.d_text or 0)
    load_weights(model, read_model_state(uri), uri)
    sampling = build_config(ParentSamplingConfig, info.config["sampling"], origin=f"{origin}, sampling")
    return LoadedHierVL(
        model.to(device).eval(), sampling, text.encoder, None if config.clip.kind == "mean" else sampling.num_frames
    )
