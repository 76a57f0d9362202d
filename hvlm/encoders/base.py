"""What every frozen encoder offers: clips of pixels in, one feature row per clip out.

Shape legend: N clips (rows), S frames per clip, H and W pixels, D feature width.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hvlm.encoders.precision import inference
from hvlm.errors import UserError
from hvlm.video.views import FrameView

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """A loaded encoder. `view` says which frames and pixels it wants, `dim` the width of its features."""

    @property
    def view(self) -> FrameView: ...

    @property
    def dim(self) -> int: ...

    def encode(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features float32 (N, D) of RGB clips uint8 (N, S, H, W, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderDescription:
    """What a store needs to know of an encoder without loading it.

    Args:
        label: for people, e.g. `tiny_clip, random seed 0`; not part of the identity.
        dim: width of a feature row.
        view: sampling, clip and pixels of the frames that the encoder wants.
        identity: JSON-able; equal identities give equal features up to the rounding of the hardware. It holds the
            contents of files (sha256), never their paths, so that moving a file makes nothing stale.
    """

    label: str
    dim: int
    view: FrameView
    identity: dict[str, Any]


def check_clips(clips: NDArray[np.uint8], view: FrameView) -> None:
    """Refuse clips that are not uint8 (N, S, crop, crop, 3).

    Raises:
        UserError: another dtype or shape.
    """
    expected = (view.clip_frames, view.crop, view.crop, 3)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != expected:
        raise UserError(
            what="clips",
            got=f"{clips.dtype} {clips.shape}",
            expected=f"uint8 (N, {', '.join(map(str, expected))})",
            do="decode with the FrameView of this encoder",
        )


@dataclass(slots=True, kw_only=True)
class BatchRunner:
    """Runs a network over any number of rows in micro-batches of `batch_size`, so that memory stays bounded.

    Where the memory does not suffice, the batch is halved and the run goes on; `batch_size` stays at what sufficed.
    A row's result does not depend on which rows share its batch beyond rounding (about 1e-5 of its size in float32: the
    order of sums in a matrix product may change with the batch size). The same rows in the same batches on one CPU give
    equal bits.
    """

    batch_size: int
    dim: int
    device: torch.device
    dtype: torch.dtype

    def run(self, rows: NDArray[Any], forward: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.float32]:
        """Return `forward` of all rows, float32 (N, D).

        Raises:
            UserError: the network gave NaN or infinity.
            MemoryError, torch.OutOfMemoryError: the memory does not even suffice for one row.
        """
        if len(rows) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        outputs: list[torch.Tensor] = []
        done = 0
        with inference(self.dtype, self.device):
            while done < len(rows):
                try:
                    outputs.append(self._run_batch(rows[done : done + self.batch_size], forward))
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error) or self.batch_size == 1:
                        raise
                    self._halve(error)
                else:
                    done += self.batch_size
            features: NDArray[np.float32] = torch.cat(outputs).cpu().numpy()
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        if bad:
            raise UserError(
                what="encoder output",
                got=f"NaN or infinity in {bad} of {len(rows)} rows with {self.dtype}",
                expected="finite numbers",
                do="check the weights file, or set precision: fp32",
            )
        return features

    def _run_batch(self, rows: NDArray[Any], forward: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        # One copy: rows may be a read-only window on shared memory (overlapping clips), no memory of ours.
        return forward(torch.from_numpy(np.array(rows, order="C")).to(self.device)).float()

    def _halve(self, error: Exception) -> None:
        halved = self.batch_size // 2
        logger.warning("out of memory with a batch of %d rows (%s): going on with %d", self.batch_size, error, halved)
        self.batch_size = halved
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # blocks cut for the larger batch fit nothing smaller


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a network failed for want of memory, on a GPU or on the CPU (a RuntimeError of its allocator)."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def is_device_fault(error: Exception) -> bool:
    """Return whether the GPU itself failed: after such an error every later call of the process fails too.

    torch raises `AcceleratorError` since 2.8, before it (and of cuBLAS still) a plain RuntimeError of the same words.
    """
    accelerator = getattr(torch, "AcceleratorError", ())
    return isinstance(error, accelerator) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
