"""What a configuration says of an encoder. Imports neither PyTorch nor open_clip: most jobs only carry it along."""

from dataclasses import dataclass, field
from typing import Literal

from hvlm.config import Config, require
from hvlm.video.sampling import SamplingConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]
C3D_CLIP_FRAMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig(Config):
    """A CLIP encoder.

    Args:
        model: a model name of open_clip (`ViT-B-32`), or the path of a JSON model config.
        pretrained: `random`, a tag of open_clip for this model (downloaded on first use), or a local weights file.
        seed: of the random weights; without effect for others.
        preprocess_tag: only for a local weights file of a model whose published weights disagree on preprocessing: the
            open_clip tag whose mean, std and resizing hold.
        sampling: which frames get a row.
        batch_size: frames per forward pass.
        precision: of the matrix products; `auto` is fp32 on every device. bf16 is faster on a GPU, and its features are
            others: it has another fingerprint.
    """

    kind: Literal["clip"] = "clip"
    model: str
    pretrained: str
    seed: int = 0
    preprocess_tag: str | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(fps=1.0))
    batch_size: int = 64
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(self.model != "", what="clip.model", got="''", expected="a model", do="set e.g. model: ViT-B-32")
        require(
            self.pretrained != "",
            what="clip.pretrained",
            got="''",
            expected="weights",
            do="set 'random', a tag or a file",
        )
        require(self.seed >= 0, what="clip.seed", got=self.seed, expected="0 or more", do="set e.g. seed: 0")
        require(
            self.batch_size >= 1,
            what="clip.batch_size",
            got=self.batch_size,
            expected="1 or more",
            do="set e.g. batch_size: 64",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class C3DConfig(Config):
    """A C3D encoder. Row i covers [i * stride_frames / fps, i * stride_frames / fps + 16 / fps) seconds.

    Args:
        weights: `random`, or a local file with the key layout of the published PyTorch port.
        seed: of the random weights; without effect for others.
        layer: which features; both follow their ReLU.
        fps: frames per second that the clips are made of. 25 is near what the videos of Sports-1M had; a fixed rate
            makes a clip last 0.64 s whatever the file's rate is.
        stride_frames: sampled frames from one clip's start to the next one's; 16 means without overlap, 8 is the
            official ActivityNet extraction.
        only_spans: make only the clips that meet an annotated span; they must not overlap.
        width: factor on the channels (1.0 is the published network, 0.125 a tiny one for tests).
        fc_dim: width of fc6 and fc7; 4096 is published.
        batch_size: clips per forward pass.
        precision: of the matrix products; `auto` is fp32 on every device. bf16 is faster on a GPU, and its features are
            others: it has another fingerprint.
    """

    kind: Literal["c3d"] = "c3d"
    weights: str
    seed: int = 0
    layer: Literal["fc6", "fc7"] = "fc6"
    fps: float = 25.0
    stride_frames: int = 16
    only_spans: bool = False
    width: float = 1.0
    fc_dim: int = 4096
    batch_size: int = 8
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(self.weights != "", what="c3d.weights", got="''", expected="weights", do="set 'random' or a file")
        require(self.seed >= 0, what="c3d.seed", got=self.seed, expected="0 or more", do="set e.g. seed: 0")
        require(
            0 < self.fps <= 1000, what="c3d.fps", got=self.fps, expected="above 0, at most 1000", do="set e.g. fps: 25"
        )
        require(
            self.stride_frames >= 1,
            what="c3d.stride_frames",
            got=self.stride_frames,
            expected="1 or more",
            do="set e.g. 16",
        )
        require(
            not self.only_spans or self.stride_frames >= C3D_CLIP_FRAMES,
            what="c3d.stride_frames with only_spans",
            got=self.stride_frames,
            expected=f"at least {C3D_CLIP_FRAMES}: clips are left out, so no two may share frames",
            do=f"set stride_frames: {C3D_CLIP_FRAMES}, or only_spans: false",
        )
        require(0 < self.width <= 4, what="c3d.width", got=self.width, expected="above 0, at most 4", do="set 1.0")
        require(self.fc_dim >= 1, what="c3d.fc_dim", got=self.fc_dim, expected="1 or more", do="set 4096")
        require(
            self.batch_size >= 1,
            what="c3d.batch_size",
            got=self.batch_size,
            expected="1 or more",
            do="set e.g. batch_size: 8",
        )


EncoderConfig = ClipConfig | C3DConfig

LoraTarget = Literal["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig(Config):
    """Low-rank adapters in a CLIP text tower, by the names of `peft.LoraConfig`.

    Args:
        r: rank of an adapter.
        lora_alpha: an adapter's output is scaled by lora_alpha / r.
        lora_dropout: of an adapter's input, in training.
        target_modules: which layers of every block: the projections of the attention, and the two layers behind it.
    """

    r: int = 8
    lora_alpha: int = 8
    lora_dropout: float = 0.0
    target_modules: tuple[LoraTarget, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        for name in ("r", "lora_alpha"):
            value = getattr(self, name)
            require(value >= 1, what=f"lora.{name}", got=value, expected="1 or more", do="set e.g. 8")
        require(
            0 <= self.lora_dropout < 1,
            what="lora.lora_dropout",
            got=self.lora_dropout,
            expected="0 or more, below 1",
            do="set e.g. 0.05",
        )
        targets = self.target_modules
        require(
            0 < len(targets) == len(set(targets)),
            what="lora.target_modules",
            got=list(targets),
            expected="one layer or more, each once",
            do="set e.g. [q_proj, v_proj]",
        )
