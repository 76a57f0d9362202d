"""CLIP image features, one row per sampled frame.

A row is the pooled and projected output of the image tower, before any L2 normalisation: a feature store keeps lengths.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020), 2.4.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvlm.encoders.base import BatchRunner, EncoderDescription, check_clips
from hvlm.encoders.clip_import import open_clip
from hvlm.encoders.clip_model import RANDOM, ClipSpec, Preprocessing, build_model, read_spec, weights_path
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.precision import resolve_device, resolve_precision, stated_precision
from hvlm.encoders.weights import weights_identity
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView


def describe_clip(config: ClipConfig) -> EncoderDescription:
    """Return what the store needs to know; reads the weights file once for its hash and builds no model.

    A tag whose weights are not in open_clip's cache yet is downloaded here: the identity is the file's content.

    Raises:
        UserError: unknown model, tag or file, or a failed download.
    """
    spec = read_spec(config.model, config.pretrained, config.preprocess_tag)
    view = clip_view(spec.preprocessing, config.sampling)
    identity = {
        "kind": "clip",
        # Minor versions of open_clip have changed what a config means (activations, pooling); patch releases have not.
        "open_clip": ".".join(open_clip.__version__.split(".")[:2]),
        "model": hashlib.sha256(json.dumps(spec.architecture, sort_keys=True).encode()).hexdigest(),
        "weights": weights_identity(weights_path(config.model, config.pretrained), config.seed),
        "preprocessing": {
            "mean": list(spec.preprocessing.mean),
            "std": list(spec.preprocessing.std),
            "channels": "rgb",
        },
        "precision": stated_precision(config.precision),
        "view": json.loads(json.dumps(asdict(view))),
        "output": "image projection, not normalised",
    }
    weights = f"random, seed {config.seed}" if config.pretrained == RANDOM else config.pretrained
    return EncoderDescription(label=f"CLIP {spec.name} ({weights})", dim=spec.dim, view=view, identity=identity)


def clip_view(preprocessing: Preprocessing, sampling: SamplingConfig) -> FrameView:
    """Return the frames and pixels that a CLIP model wants: `shortest` scales the shorter side, `squash` both sides."""
    side = preprocessing.image_size
    return FrameView(
        sampling=sampling,
        clip_frames=1,
        clip_stride=1,
        resize=side if preprocessing.resize_mode == "shortest" else (side, side),
        crop=side,
        interpolation=preprocessing.interpolation,
    )


class ClipEncoder:
    """A loaded CLIP image tower; the text tower is dropped (see `hvlm.encoders.text`)."""

    def __init__(self, config: ClipConfig, spec: ClipSpec, tower: torch.nn.Module, device: torch.device) -> None:
        self.view = clip_view(spec.preprocessing, config.sampling)
        self.dim = spec.dim
        self._tower = tower.to(device)
        dtype = resolve_precision(config.precision, device)
        self._runner = BatchRunner(batch_size=config.batch_size, dim=spec.dim, device=device, dtype=dtype)
        # uint8 pixel p becomes (p / 255 - mean) / std, written as one multiply-add.
        mean, std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (spec.preprocessing.mean, spec.preprocessing.std)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def encode(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return image features, not normalised.

        Args:
            clips: RGB frames uint8 (N, 1, H, W, 3), resized and cropped as `view` says.

        Returns:
            float32 (N, D).

        Raises:
            UserError: clips of another shape or dtype, or features that are not finite.
        """
        check_clips(clips, self.view)
        return self._runner.run(clips[:, 0], self._forward)

    def _forward(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        pixels = frames_NHWC.permute(0, 3, 1, 2).float() * self._scale + self._shift
        features: torch.Tensor = self._tower(pixels)
        return features


def load_clip(config: ClipConfig, device: str) -> ClipEncoder:
    """Return the encoder on a device.

    Raises:
        UserError: unknown model, tag, file or device, a failed download, or weights that do not fit the model.
    """
    resolved = resolve_device(device)
    spec = read_spec(config.model, config.pretrained, config.preprocess_tag)
    network: Any = build_model(spec, weights_path(config.model, config.pretrained), config.seed)
    # CLIP.encode_image(x, normalize=False) is exactly visual(x) in open_clip 3.3 for both of its two-tower classes.
    return ClipEncoder(config, spec, network.visual, resolved)
