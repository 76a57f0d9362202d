"""Fine-tuning on labels: encoder and pyramid come from a trained HierarchicalVLM, the classifier is new."""

from dataclasses import replace

from hvlm.models.flat import FlatPoolingConfig, RowEncoderConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig
from hvlm.models.presets import resolve_encoder
from hvlm.models.pyramid import PyramidConfig
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.store.manifest import Manifest
from pipelines.training.baselines.config import SupervisedTrainConfig
from pipelines.training.checkpoints import WITH_HIERARCHICAL_VLM, CheckpointInfo, load_model
from pipelines.training.start import check_inputs, pin_start, pinned_start, unfit

Part = TemporalEncoderConfig | RowEncoderConfig | PyramidConfig | FlatPoolingConfig


def pin_backbone(config: SupervisedTrainConfig, manifest: Manifest) -> dict[str, object]:
    """Write down which weights the training starts from (`pin_start`).

    Raises:
        UserError: no such checkpoint, or not one of this architecture on features like these.
    """

    def check(uri: str, info: CheckpointInfo) -> None:
        system = info.config.get("system", WITH_HIERARCHICAL_VLM[0])
        if system not in WITH_HIERARCHICAL_VLM:
            raise unfit(uri, f"a training of {system}", " or ".join(WITH_HIERARCHICAL_VLM))
        trained = _parts(load_model(uri)[0].config)
        for name, own in _parts(config.model).items():
            if trained[name] != own:
                do = f"copy model.{name} from its training, or name another one"
                raise unfit(uri, f"model.{name} {trained[name]}", f"{own}, as here", do)
        check_inputs(uri, info, config, manifest)

    return pin_start(config.start_checkpoint, config.output_uri, check)


def load_backbone(backbone: HierarchicalVLM, output_uri: str) -> bool:
    """Give a new backbone the encoder and the pyramid that were written down; return whether there were any.

    Raises:
        UserError: the weights are gone, or others than at the first start.
    """
    uri = pinned_start(output_uri)
    if uri is None:
        return False
    trained, _ = load_model(uri)
    backbone.encoder.load_state_dict(trained.encoder.state_dict())
    backbone.pyramid.load_state_dict(trained.pyramid.state_dict())
    return True


def _parts(model: HierarchicalVLMConfig) -> dict[str, Part]:
    """What must be equal: all of encoder and pyramid but for dropout, which has no weights and may suit the labels."""
    encoder = model.encoder if isinstance(model.encoder, RowEncoderConfig) else resolve_encoder(model.encoder)
    return {"encoder": replace(encoder, dropout=0.0), "pyramid": model.pyramid}
