"""CLIP text features: the text tower that belongs to the image tower of a store.

Captions longer than the model's context (77 tokens for most models, with start and end) are cut there, as in CLIP's own
training; which ones were cut is counted, returned by `truncated` and logged.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.encoders.base import BatchRunner
from hvlm.encoders.clip_model import ClipSpec, build_model, build_tokenizer, read_spec, weights_path
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.precision import resolve_device, resolve_precision

log = logging.getLogger(__name__)

_MAX_LOGGED = 5


@dataclass(frozen=True, slots=True)
class TruncatedText:
    """A text that did not fit: its position in the list, its tokens with start and end, and how many fit."""

    index: int
    num_tokens: int
    context_length: int


class ClipTokenizer:
    """CLIP's tokenizer, which says what it cuts. `tokenizer`: open_clip's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def tokens(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return token ids int32 (N, L) with start, end and padding; logs one warning if texts were cut."""
        cut = self.truncated(texts)
        if cut:
            first = "; ".join(f"#{each.index} has {each.num_tokens} tokens" for each in cut[:_MAX_LOGGED])
            log.warning("%d of %d texts were cut to %d tokens: %s", len(cut), len(texts), cut[0].context_length, first)
        return np.asarray(self._tokenizer(list(texts)).numpy(), dtype=np.int32)

    def truncated(self, texts: Sequence[str]) -> list[TruncatedText]:
        """Return the texts that are longer than the context, in order."""
        context = int(self._tokenizer.context_length)
        lengths = [len(self._tokenizer.encode(text)) + 2 for text in texts]
        return [TruncatedText(index, length, context) for index, length in enumerate(lengths) if length > context]


class ClipTextEncoder:
    """A loaded CLIP text tower with its tokenizer."""

    def __init__(self, tokenizer: ClipTokenizer, network: Any, runner: BatchRunner) -> None:
        self.tokenizer = tokenizer
        self._network = network.to(runner.device)
        self._runner = runner

    @property
    def dim(self) -> int:
        """Width of a feature row; equal to that of the image features."""
        return self._runner.dim

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return text features, pooled and projected, not normalised; logs one warning if texts were cut.

        Args:
            texts: N captions.

        Returns:
            float32 (N, D).

        Raises:
            UserError: features that are not finite.
        """
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self._runner.run(self.tokenizer.tokens(texts), self._network.encode_text)


def load_tokenizer(config: ClipConfig) -> ClipTokenizer:
    """Return the tokenizer of the model that `config` names.

    Raises:
        UserError: unknown model, or one with another tokenizer than CLIP's.
    """
    return ClipTokenizer(build_tokenizer(read_spec(config.model, config.pretrained, config.preprocess_tag)))


def load_text_network(config: ClipConfig) -> tuple[Any, ClipSpec]:
    """Return the CLIP model that `config` names without its image tower, frozen, on the CPU; and its architecture.

    Raises:
        UserError: as `hvlm.encoders.clip.load_clip`.
    """
    spec = read_spec(config.model, config.pretrained, config.preprocess_tag)
    network: Any = build_model(spec, weights_path(config.model, config.pretrained), config.seed)
    del network.visual
    return network, spec


def load_text_encoder(config: ClipConfig, device: str) -> ClipTextEncoder:
    """Return the text tower of the model that `config` names, on a device.

    Raises:
        UserError: as `hvlm.encoders.clip.load_clip`, or a model with another tokenizer than CLIP's.
    """
    resolved = resolve_device(device)
    tokenizer = load_tokenizer(config)  # before a large model is built
    network, spec = load_text_network(config)
    dtype = resolve_precision(config.precision, resolved)
    runner = BatchRunner(batch_size=config.batch_size, dim=spec.dim, device=resolved, dtype=dtype)
    return ClipTextEncoder(tokenizer, network, runner)
