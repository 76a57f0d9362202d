"""C3D clip features: fc6 or fc7 of a 3-D convolutional network over 16 frames of 112 x 112 pixels.

Source: Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks (arXiv 1412.0767), 3.2 and 3.3.

What is fixed by the published Sports-1M weights in their PyTorch port (`c3d.pickle`: conv1, conv2, conv3a ... fc8), and
therefore here:

* pool1 keeps time (1 x 2 x 2); pool5 pads 7 x 7 by one pixel on each side, which gives 4 x 4 and the 8192 inputs of
  fc6. (Caffe's own pool5 rounds up without padding, so its windows lie one pixel further; the port's way is kept.)
* Frames are resized to 128 x 171 (height x width, aspect ratio not kept) and cropped to the central 112 x 112.
* Pixels stay in 0..255, channels are ordered **BGR** (the original read frames with OpenCV), and the mean of Sports-1M
  is subtracted. The original subtracts a cube (3 x 16 x 128 x 171) that is not part of the weights file; here it is the
  mean of that cube per channel, B 90.25, G 97.66, R 101.41. The port's example subtracts nothing; with this order and
  mean its users report the right classes (https://github.com/DavideA/c3d-pytorch/issues/1).
* Features are taken after the ReLU of the layer, as the original feature extractor does (in place in Caffe). They are
  not L2-normalised; the paper normalises after averaging a video's clips.

Shape legend: N clips, S = 16 frames, H = W = 112, C channels, D feature width.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hvlm.encoders.base import BatchRunner, EncoderDescription, check_clips
from hvlm.encoders.config import C3D_CLIP_FRAMES, C3DConfig
from hvlm.encoders.precision import resolve_device, resolve_precision, stated_precision
from hvlm.encoders.weights import load_strict, read_state_dict, weights_identity
from hvlm.errors import UserError
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView

RANDOM = "random"
CROP_PX = 112
RESIZE_PX = (128, 171)
MEAN_BGR = (90.25, 97.66, 101.41)

# Name, channels at width 1.0, kernel of the max pooling after it.
_LAYERS: tuple[tuple[str, int, tuple[int, int, int] | None], ...] = (
    ("conv1", 64, (1, 2, 2)),
    ("conv2", 128, (2, 2, 2)),
    ("conv3a", 256, None),
    ("conv3b", 256, (2, 2, 2)),
    ("conv4a", 512, None),
    ("conv4b", 512, (2, 2, 2)),
    ("conv5a", 512, None),
    ("conv5b", 512, (2, 2, 2)),
)
# Layers of the published file that features do not need.
_UNUSED_KEYS = ("fc7.weight", "fc7.bias", "fc8.weight", "fc8.bias")


class C3D(nn.Module):
    """The network up to the wanted layer; keys are those of the published PyTorch port.

    Args:
        width: factor on the channels.
        fc_dim: width of fc6 and fc7.
        layer: last layer; with `fc6` there is no fc7.
    """

    def __init__(self, *, width: float = 1.0, fc_dim: int = 4096, layer: Literal["fc6", "fc7"] = "fc7") -> None:
        super().__init__()
        channels_in = 3
        for name, published, _ in _LAYERS:
            channels = max(1, round(published * width))
            self.add_module(name, nn.Conv3d(channels_in, channels, kernel_size=3, padding=1))
            channels_in = channels
        self.fc6 = nn.Linear(channels_in * 4 * 4, fc_dim)
        self.fc7 = nn.Linear(fc_dim, fc_dim) if layer == "fc7" else None

    def forward(self, pixels_NCSHW: torch.Tensor) -> torch.Tensor:
        """Return features (N, D), zero or positive, of BGR pixels in 0..255 less their mean, (N, 3, 16, 112, 112)."""
        hidden = pixels_NCSHW
        for name, _, pool in _LAYERS:
            hidden = torch.relu_(self.get_submodule(name)(hidden))
            if pool is not None:
                padding = (0, 1, 1) if name == "conv5b" else 0
                hidden = nn.functional.max_pool3d(hidden, pool, pool, padding)
        features = torch.relu_(self.fc6(hidden.flatten(1)))
        return features if self.fc7 is None else torch.relu_(self.fc7(features))

    def init_random(self, seed: int) -> None:
        """Fill in random weights under which features stay alive: Kaiming normal for ReLU, centred per unit, biases 0.

        After ReLU and max pooling every input is positive, so an uncentred random unit mostly sees that common part:
        its sign is then the same for all clips. On 16 clips of real videos (width 0.125) centring takes the dead units
        of fc6 from 30 % to 5 % and the mean cosine between clips from 0.92 to 0.63. conv1 is scaled down by 64, about
        the standard deviation of pixels in 0..255, so that features come out near 1.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, module in self.named_children():
                if not isinstance(module, nn.Conv3d | nn.Linear) or module.bias is None:
                    continue
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)
                if name == "conv1":
                    module.weight.div_(64.0)
                else:
                    module.weight.sub_(module.weight.flatten(1).mean(1).view(-1, *[1] * (module.weight.ndim - 1)))


def describe_c3d(config: C3DConfig) -> EncoderDescription:
    """Return what the store needs to know; reads the weights file once for its hash and builds no network.

    Raises:
        UserError: no such weights file.
    """
    path = _weights_path(config)
    view = c3d_view(config)
    identity = {
        "kind": "c3d",
        "model": {"width": config.width, "fc_dim": config.fc_dim, "layer": config.layer},
        "weights": weights_identity(path, config.seed),
        "preprocessing": {"mean": list(MEAN_BGR), "scale": 255, "channels": "bgr"},
        "precision": stated_precision(config.precision),
        "view": json.loads(json.dumps(asdict(view))),
        "output": "after ReLU, not normalised",
    }
    weights = f"random, seed {config.seed}" if path is None else config.weights
    return EncoderDescription(
        label=f"C3D {config.layer} width {config.width:g} ({weights})", dim=config.fc_dim, view=view, identity=identity
    )


def c3d_view(config: C3DConfig) -> FrameView:
    """Return the frames and pixels that C3D wants."""
    return FrameView(
        sampling=SamplingConfig(kind="spans" if config.only_spans else "fps", fps=config.fps),
        clip_frames=C3D_CLIP_FRAMES,
        clip_stride=config.stride_frames,
        resize=RESIZE_PX,
        crop=CROP_PX,
        interpolation="bilinear",
    )


class C3DEncoder:
    """A loaded C3D network."""

    def __init__(self, config: C3DConfig, network: C3D, device: torch.device) -> None:
        self.view = c3d_view(config)
        self.dim = config.fc_dim
        self._network = network.to(device)
        dtype = resolve_precision(config.precision, device)
        self._runner = BatchRunner(batch_size=config.batch_size, dim=config.fc_dim, device=device, dtype=dtype)
        self._mean = torch.tensor(MEAN_BGR, device=device).view(1, 3, 1, 1, 1)

    def encode(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of the configured layer, zero or positive, not normalised.

        Args:
            clips: RGB clips uint8 (N, 16, 112, 112, 3), resized and cropped as `view` says.

        Returns:
            float32 (N, D).

        Raises:
            UserError: clips of another shape or dtype, or features that are not finite.
        """
        check_clips(clips, self.view)
        return self._runner.run(clips, self._forward)

    def _forward(self, clips_NSHWC: torch.Tensor) -> torch.Tensor:
        pixels_NCSHW = clips_NSHWC.flip(-1).permute(0, 4, 1, 2, 3).float() - self._mean
        features: torch.Tensor = self._network(pixels_NCSHW)
        return features


def load_c3d(config: C3DConfig, device: str) -> C3DEncoder:
    """Return the encoder on a device.

    Raises:
        UserError: unknown device, unreadable weights file, or keys and shapes that do not fit, listed.
    """
    resolved = resolve_device(device)
    path = _weights_path(config)
    network = C3D(width=config.width, fc_dim=config.fc_dim, layer=config.layer)
    if path is None:
        network.init_random(config.seed)
    else:
        load_strict(network, read_state_dict(path), source=config.weights, may_be_unused=_UNUSED_KEYS)
    return C3DEncoder(config, network.eval().requires_grad_(False), resolved)


def _weights_path(config: C3DConfig) -> Path | None:
    if config.weights == RANDOM:
        return None
    path = Path(config.weights)
    if not path.is_file():
        raise UserError(
            what="c3d.weights",
            got=config.weights,
            expected="'random', or an existing file",
            do="check the path (the published file of the PyTorch port is called c3d.pickle)",
        )
    return path
