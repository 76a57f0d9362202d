"""`start: child_only`: clip and text encoder come from a finished child-only training."""

from hvlm.models.hiervl import HierVL
from pipelines.store.manifest import Manifest
from pipelines.training.checkpoints import CheckpointInfo, read_model_state
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.start import check_inputs, pin_start, pinned_start, unfit

_NEW = "aggregator."  # the part that a child-only training has not
_INPUTS = (("text", "encoder"), ("text", "lora"), ("stream", "l2_normalise"))
_DO = "name another one, or train it with preset: child_only"


def pin_child_only(config: HierVLTrainConfig, manifest: Manifest, d_text: int) -> dict[str, object]:
    """Write down which weights the training starts from (`pin_start`).

    Raises:
        UserError: no such checkpoint, or not one of a child-only training on features and texts like these.
    """

    def check(uri: str, info: CheckpointInfo) -> None:
        model = info.config.get("model", {})
        kind = model.get("schedule", {}).get("kind") if info.config.get("system") == "hiervl" else None
        if kind == "child" and model.get("summaries_as_captions"):
            kind = "clips with summaries"
        if kind != "child":
            got = f"a training of {kind or info.config.get('system', 'hierarchical_vlm')}"
            raise unfit(uri, got, "a child-only one", _DO)
        if info.d_text != d_text:
            raise unfit(uri, f"texts of width {info.d_text}", f"{d_text}, as here", _DO)
        check_inputs(uri, info, config, manifest, _INPUTS)

    return pin_start(config.start_checkpoint, config.output_uri, check)


def load_child_only(model: HierVL, output_uri: str) -> None:
    """Give a new model the weights that were written down; nothing where none were.

    Raises:
        UserError: the weights are gone, others than at the first start, or of other sizes.
    """
    uri = pinned_start(output_uri)
    if uri is None:
        return
    try:
        missing, unexpected = model.load_state_dict(read_model_state(uri), strict=False)
    except RuntimeError as error:
        got = " ".join(str(error).split())[:400]
        raise unfit(uri, got, "encoders of the sizes of model.clip and model.dim", _DO) from error
    wrong = [*unexpected, *(name for name in missing if not name.startswith(_NEW))]
    if wrong:
        got = f"other parts: {', '.join(wrong[:5])}"
        raise unfit(uri, got, "the clip and text encoder of this configuration", _DO)
