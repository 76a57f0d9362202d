"""Stage 2 of extraction, 1:1, an actor pool per encoder: frames become features; frames are dropped here.

A batch holds several segments of any videos, and the encoder sees all their clips as one array; every row gets back
exactly its own rows.
"""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from hvlm.encoders.base import Encoder
from hvlm.encoders.registry import load_encoder
from hvlm.errors import Reason, VideoError
from hvlm.video.views import FrameView, cut_clips
from pipelines.extraction.columns import ERROR, Failure, RowTiming, column, frames_of, replace_column
from pipelines.extraction.config import EncoderConfig

STAGE = "encode"
logger = logging.getLogger(__name__)


class EncodeStage:
    """One actor of an encoder's pool; it holds the model."""

    def __init__(self, name: str, config: EncoderConfig, num_threads: int | None) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self._name = name
        self._encoder = load_encoder(config, "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, table: pa.Table) -> pa.Table:
        return encode_table(table, self._name, self._encoder)


def encode_table(table: pa.Table, name: str, encoder: Encoder) -> pa.Table:
    """Return the table with `{name}.features` filled (float16, (num_rows, D)) and `{name}.frames` emptied."""
    clips = {row: c for row in range(table.num_rows) if (c := _clips(table, name, row, encoder.view)) is not None}
    outcome: dict[int, bytes | VideoError] = {}
    try:
        outcome = _encode_rows(encoder, clips)
    except Exception as error:  # whatever a model raises: find the rows that cause it, spare the others
        logger.warning(
            "encoder %s failed on a batch of %d segments (%s); encoding them one by one", name, len(clips), error
        )
        for row, clip in clips.items():
            outcome |= _encode_alone(encoder, row, clip)
    errors = table.column(ERROR).to_pylist()
    features: list[bytes | None] = [None] * table.num_rows
    for row, result in outcome.items():
        if isinstance(result, VideoError):
            errors[row] = Failure.of(f"{STAGE}:{name}", result).to_json()
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


def _encode_alone(encoder: Encoder, row: int, clips: np.ndarray) -> dict[int, bytes | VideoError]:
    try:
        return _encode_rows(encoder, {row: clips})
    except Exception as error:  # this row is the cause: it becomes a quarantine row
        return {
            row: VideoError(
                Reason.ENCODER_ERROR, f"{type(error).__name__}: {error}", permanent=not _out_of_memory(error)
            )
        }


def _checked(features: np.ndarray) -> bytes | VideoError:
    half: np.ndarray[Any, np.dtype[np.float16]] = features.astype(np.float16)
    if not np.isfinite(half).all():
        bad = int((~np.isfinite(half)).any(axis=1).sum())
        return VideoError(Reason.ENCODER_ERROR, f"{bad} of {len(half)} feature rows are NaN or beyond float16")
    return half.tobytes()


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
