"""HierarchicalVLM: temporal encoder, attention-pooling pyramid and vision-language alignment over feature rows.

Shapes: B local batch, T frames, I input width, D width of the encoder, L nodes of a level, Z width of the projection,
E width of the joint space, X width of the text features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.errors import UserError
from hvlm.models.attention import padded
from hvlm.models.flat import FlatPooling, FlatPoolingConfig, RowEncoder, RowEncoderConfig
from hvlm.models.heads import AlignmentConfig, AlignmentHeads, FrameClassifier, ProjectorConfig, build_projector
from hvlm.models.presets import PresetName, resolve_encoder
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig, PyramidLevel
from hvlm.models.temporal_encoder import TemporalEncoder, TemporalEncoderConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchicalVLMConfig(Config):
    """The whole model. `encoder` is a preset's name or explicit sizes; `num_classes` 0 means no frame classifier.

    `cross_scale` adds the predictor of the cross-scale loss; `alignment.enabled` the vision-language heads (phase 3).
    Baselines have a flat mean in the place of the pyramid, and TSN-style ones `encoder: {kind: rows}`.
    """

    encoder: TemporalEncoderConfig | RowEncoderConfig | PresetName = "S"
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    pyramid: PyramidConfig | FlatPoolingConfig = field(default_factory=PyramidConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    cross_scale: bool = False
    num_classes: int = 0

    def __post_init__(self) -> None:
        require(self.num_classes >= 0, what="model.num_classes", got=self.num_classes, expected="0 or more", do="use 0")
        require(
            not self.cross_scale or isinstance(self.pyramid, PyramidConfig),
            what="model.cross_scale",
            got="true with a flat model.pyramid",
            expected="false: without a pyramid no node has children",
            do="leave out one of the two",
        )


class CrossScaleNodes(NamedTuple):
    """One level as the cross-scale loss sees it: projections of its nodes and the predictions made from them."""

    projected_BLZ: Tensor
    predicted_BLZ: Tensor
    mask_BL: Tensor


class Output(NamedTuple):
    """What one forward pass gives. Padded rows and nodes are zero.

    hidden_BTD: encoder rows, for downstream use. projected_BTZ: rows on which the losses act. levels: pyramid, base
    first. video_BE: unit-norm video embedding (joint space, or the normalised top node without alignment). text_BE:
    unit-norm text embedding when text was given. logit_scale: scalar, None without alignment. cross_scale: one entry
    per level, empty unless configured. frame_logits_BTC: None without a classifier.
    """

    hidden_BTD: Tensor
    projected_BTZ: Tensor
    levels: list[PyramidLevel]
    video_BE: Tensor
    text_BE: Tensor | None
    logit_scale: Tensor | None
    cross_scale: list[CrossScaleNodes]
    frame_logits_BTC: Tensor | None


class HierarchicalVLM(nn.Module):
    """See the module's docstring. The vision-language heads are made last, so that phases 1 and 2 start from the same
    weights with and without them.

    Args:
        config: sizes and parts.
        input_dims: width of each encoder's features in the order of concatenation.
        d_text: width of the text features; None when there is no text.
    """

    def __init__(self, config: HierarchicalVLMConfig, input_dims: Sequence[int], d_text: int | None) -> None:
        super().__init__()
        self.config = config
        self.input_dims = tuple(input_dims)
        self.encoder = _build_encoder(config.encoder, input_dims)
        width = self.d_model = self.encoder.config.d_model
        self.projector = build_projector(config.projector, width)
        self.pyramid = _build_pyramid(config.pyramid, width)
        projected = self.d_projected = width if config.projector.kind == "identity" else config.projector.dim
        self.predictor = nn.Linear(projected, projected) if config.cross_scale else None
        dropout = self.encoder.config.dropout
        self.classifier = FrameClassifier(width, config.num_classes, dropout) if config.num_classes else None
        self.alignment: AlignmentHeads | None = None
        if config.alignment.enabled:
            if d_text is None:
                raise UserError(
                    what="model.alignment.enabled",
                    got="true without text features",
                    expected="captions or class names in the store",
                    do="set model.alignment.enabled: false, or add annotations",
                )
            self.alignment = AlignmentHeads(config.alignment, width, d_text)

    def forward(self, features_BTI: Tensor, times_BT: Tensor, mask_BT: Tensor, text_BX: Tensor | None = None) -> Output:
        """Encode a padded batch.

        Args:
            features_BTI: float (B, T, I).
            times_BT: float (B, T), start of each row in seconds.
            mask_BT: bool (B, T), True = real, a prefix of ones.
            text_BX: float (B, X) pooled text features, one text per video; ignored without alignment. Given here and
                not to `embed_text` while training, so that DDP sees one forward pass.

        Raises:
            UserError: the features have another width than the model.
        """
        hidden_BTD, levels = self.encode(features_BTI, times_BT, mask_BT)
        projected_BTZ = padded(self.projector(hidden_BTD), mask_BT)
        text_BE = None if self.alignment is None or text_BX is None else self.alignment.embed_text(text_BX)
        return Output(
            hidden_BTD=hidden_BTD,
            projected_BTZ=projected_BTZ,
            levels=levels,
            video_BE=self.embed_top(levels[-1].nodes_BLD[:, 0]),
            text_BE=text_BE,
            logit_scale=None if self.alignment is None else self.alignment.logit_scale(),
            cross_scale=self._cross_scale(levels, projected_BTZ),
            frame_logits_BTC=None if self.classifier is None else self.classifier(hidden_BTD),
        )

    def encode(self, features_BTI: Tensor, times_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, list[PyramidLevel]]:
        """The encoder's rows (B, T, D) and the pyramid's levels, base first; arguments as of `forward`.

        Raises:
            UserError: the features have another width than the model.
        """
        self._check_width(features_BTI)
        hidden_BTD: Tensor = self.encoder(features_BTI, times_BT, mask_BT)
        return hidden_BTD, self.pyramid(hidden_BTD, times_BT, mask_BT)

    def embed_top(self, top_BD: Tensor) -> Tensor:
        """Pyramid nodes (B, D) → unit-norm (B, E) in the joint space, or (B, D) without alignment."""
        if self.alignment is None:
            return functional.normalize(top_BD.float(), dim=-1)
        return self.alignment.embed_video(top_BD)

    def embed_text(self, text_BX: Tensor) -> Tensor:
        """Pooled text features (B, X) → unit-norm (B, E).

        Raises:
            UserError: the model has no alignment heads.
        """
        if self.alignment is None:
            raise UserError(
                what="model.alignment.enabled",
                got="false",
                expected="true to embed text",
                do="train with alignment, or skip the text metrics",
            )
        return self.alignment.embed_text(text_BX)

    def _cross_scale(self, levels: list[PyramidLevel], projected_BTZ: Tensor) -> list[CrossScaleNodes]:
        if self.predictor is None:
            return []
        nodes: list[CrossScaleNodes] = []
        for index, level in enumerate(levels):
            z_BLZ = projected_BTZ if index == 0 else padded(self.projector(level.nodes_BLD), level.mask_BL)
            predicted_BLZ = padded(self.predictor(z_BLZ), level.mask_BL)
            nodes.append(CrossScaleNodes(z_BLZ, predicted_BLZ, level.mask_BL))
        return nodes

    def _check_width(self, features_BTI: Tensor) -> None:
        expected = sum(self.input_dims)
        if features_BTI.shape[-1] != expected:
            raise UserError(
                what="features",
                got=f"width {features_BTI.shape[-1]}",
                expected=f"width {expected}, as the model was built with (encoders {self.input_dims})",
                do="read the encoders that the checkpoint was trained on, in the same order",
            )


def build_model(config: HierarchicalVLMConfig, d_in: int | Sequence[int], d_text: int | None = None) -> HierarchicalVLM:
    """The model for features of width `d_in` (several encoders: their widths in the order of concatenation).

    Args:
        config: what to build.
        d_in: width of the rows, or one width per encoder, so that `input_norm` treats each by itself.
        d_text: width of the text features; needed with `alignment.enabled`.

    Raises:
        UserError: alignment without text features, or a width below 1.
    """
    input_dims = (d_in,) if isinstance(d_in, int) else tuple(d_in)
    require(
        len(input_dims) > 0 and min(input_dims) >= 1,
        what="d_in",
        got=input_dims,
        expected="one width of 1 or more per encoder",
        do="check the store's encoders",
    )
    return HierarchicalVLM(config, input_dims, d_text)


def _build_encoder(
    config: TemporalEncoderConfig | RowEncoderConfig | PresetName, input_dims: Sequence[int]
) -> TemporalEncoder | RowEncoder:
    if isinstance(config, RowEncoderConfig):
        return RowEncoder(config, input_dims)
    return TemporalEncoder(resolve_encoder(config), input_dims)


def _build_pyramid(config: PyramidConfig | FlatPoolingConfig, d_model: int) -> AttentionPyramid | FlatPooling:
    if isinstance(config, FlatPoolingConfig):
        return FlatPooling(config)
    return AttentionPyramid(config, d_model)
