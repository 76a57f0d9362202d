"""Stage 2 of extraction, 1:1, an actor pool per encoder: frames become features; frames are dropped here.

A batch holds several segments of any videos, and the encoder sees all their clips as one array; every row gets back
exactly its own rows. Now and then that is proved: a few clips are cut and encoded again, each alone, and compared with
what their rows got.
"""

import logging
import os
import socket
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from hvlm.encoders.base import Encoder, is_device_fault, is_out_of_memory
from hvlm.encoders.config import EncoderConfig
from hvlm.encoders.registry import load_encoder
from hvlm.errors import JobError, Reason, VideoError
from hvlm.video.views import FrameView, clip_positions, cut_clips
from pipelines.extraction.columns import ERROR, Failure, RowTiming, column, frames_of, replace_column
from pipelines.extraction.ledger import ENCODE
from pipelines.extraction.resources import EncoderThreads
from pipelines.extraction.spare_cpus import SpareCpus

logger = logging.getLogger(__name__)
# Spot checks: the first batch of every actor and one in 64, four clips of it. Costs far below 1 %; a defect that mixes
# rows up does so in every batch.
_CHECK_EVERY = 64
_CHECKED_CLIPS = 4
# What else is in a batch changes the last bits of a feature (1 % in bf16); another clip's feature is much farther.
_SAME_WITHIN = 0.05


class MixedUpError(JobError):
    """A row did not get the features of its clips: a defect of the program; the run's staged rows are dropped."""


class DeviceFault(JobError):
    """A GPU failed: no fault of any video, and nothing more can be encoded on it."""


class EncodeStage:
    """One actor of an encoder's pool; it holds the model."""

    def __init__(self, name: str, config: EncoderConfig, threads: EncoderThreads) -> None:
        self._name, self._num_batches, self._threads = name, 0, threads
        self._encoder = load_encoder(config, "cuda" if torch.cuda.is_available() else "cpu")
        self._spare = SpareCpus()

    def __call__(self, table: pa.Table) -> pa.Table:
        self._num_batches += 1
        torch.set_num_threads(self._threads.within(self._spare.num_threads()))
        return encode_table(table, self._name, self._encoder, prove=self._num_batches % _CHECK_EVERY == 1)


def encode_table(table: pa.Table, name: str, encoder: Encoder, prove: bool = False) -> pa.Table:
    """Return the table with `{name}.features` filled (float16, (num_rows, D)) and `{name}.frames` emptied.

    Raises:
        DeviceFault: the encoder's GPU failed.
        MixedUpError: `prove` is set and a clip that was encoded alone has other features than its row got.
    """
    clips = {row: c for row in range(table.num_rows) if (c := _clips(table, name, row, encoder.view)) is not None}
    outcome: dict[int, bytes | VideoError] = {}
    try:
        outcome = _encode_rows(encoder, clips)
    except Exception as error:  # whatever a model raises: find the rows that cause it, spare the others
        _check_device(name, error)
        logger.warning(
            "encoder %s failed on a batch of %d segments (%s); encoding them one by one", name, len(clips), error
        )
        for row, clip in clips.items():
            outcome |= _encode_alone(name, encoder, row, clip)
    if prove:
        _prove(table, name, encoder, {row: len(clip) for row, clip in clips.items()}, outcome)
    errors = table.column(ERROR).to_pylist()
    features: list[bytes | None] = [None] * table.num_rows
    for row, result in outcome.items():
        if isinstance(result, VideoError):
            errors[row] = Failure.of(f"{ENCODE}:{name}", result).to_json()
        else:
            features[row] = result
    table = replace_column(table, column(name, "features"), features)
    table = replace_column(table, column(name, "frames"), [None] * table.num_rows)
    return replace_column(table, ERROR, errors)


def _clips(table: pa.Table, name: str, row: int, view: FrameView) -> np.ndarray | None:
    """Return a row's clips, uint8 (num_rows, S, H, W, 3), as a view on its frames."""
    if table.column(ERROR)[row].is_valid:
        return None
    frames = frames_of(table, name, row, view.crop)
    if frames is None:
        return None
    num_rows = RowTiming.from_json(table.column(column(name, "timing"))[row].as_py()).num_rows
    if num_rows == 0:
        return np.empty((0, view.clip_frames, *frames.shape[1:]), np.uint8)
    return cut_clips(frames, num_rows, view)


def _encode_rows(encoder: Encoder, clips: dict[int, np.ndarray]) -> dict[int, bytes | VideoError]:
    if not clips:
        return {}
    arrays = list(clips.values())
    features = encoder.encode(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
    expected = (sum(map(len, arrays)), encoder.dim)
    if features.shape != expected:
        raise VideoError(Reason.ENCODER_ERROR, f"the encoder returned {features.shape} for {expected}")
    ends = np.cumsum([len(array) for array in arrays])
    return {row: _checked(part) for row, part in zip(clips, np.split(features, ends[:-1]), strict=True)}


def _encode_alone(name: str, encoder: Encoder, row: int, clips: np.ndarray) -> dict[int, bytes | VideoError]:
    try:
        return _encode_rows(encoder, {row: clips})
    except Exception as error:  # this row is the cause: it becomes a quarantine row
        _check_device(name, error)
        memory = is_out_of_memory(error)
        reason = Reason.OUT_OF_MEMORY if memory else Reason.ENCODER_ERROR
        return {row: VideoError(reason, f"{type(error).__name__}: {error}", permanent=not memory)}


def _check_device(name: str, error: Exception) -> None:
    """End the job where it is the GPU that failed, not the network on these clips."""
    if is_device_fault(error):
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0")  # of this actor, set by Ray
        raise DeviceFault(
            f"encoder {name}: GPU {gpu} of {socket.gethostname()} failed ({type(error).__name__}: {error}); no video "
            "is blamed and what was committed stays: look at the GPU (nvidia-smi), then run the same command again"
        ) from error


def _prove(
    table: pa.Table, name: str, encoder: Encoder, num_clips: dict[int, int], outcome: dict[int, bytes | VideoError]
) -> None:
    """Cut a few clips anew from the rows' frames, encode each alone, and compare them with what their rows got."""
    where = [
        (row, clip) for row, number in num_clips.items() if isinstance(outcome[row], bytes) for clip in range(number)
    ]
    chosen = np.random.default_rng(len(where)).permutation(len(where))[:_CHECKED_CLIPS]
    for row, clip in (where[position] for position in chosen):
        stored = np.frombuffer(outcome[row], np.float16).reshape(-1, encoder.dim).astype(np.float32)  # type: ignore[arg-type]
        frames: np.ndarray = frames_of(table, name, row, encoder.view.crop)  # type: ignore[assignment]
        own = frames[clip_positions(num_clips[row], encoder.view)[clip]]  # not by `cut_clips`: it is judged too
        alone = encoder.encode(own[None])[0].astype(np.float32)
        got = stored[clip] if len(stored) == num_clips[row] else np.full_like(alone, np.inf)
        if not float(np.linalg.norm(got - alone)) <= _SAME_WITHIN * float(np.linalg.norm(alone)):
            raise MixedUpError(
                f"clip {clip} of a row with {num_clips[row]} clips has other features alone than in its batch; rows "
                "were mixed up or the encoder depends on its batch; what this run staged is dropped, please report it"
            )


def _checked(features: np.ndarray) -> bytes | VideoError:
    half: np.ndarray[Any, np.dtype[np.float16]] = features.astype(np.float16)
    if not np.isfinite(half).all():
        bad = int((~np.isfinite(half)).any(axis=1).sum())
        return VideoError(Reason.ENCODER_ERROR, f"{bad} of {len(half)} feature rows are NaN or beyond float16")
    if zero := int((~half.any(axis=1)).sum()):
        return VideoError(Reason.ENCODER_ERROR, f"{zero} of {len(half)} feature rows are all zero")
    return half.tobytes()
