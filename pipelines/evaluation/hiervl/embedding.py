"""Embeds the videos of a store with a HierVL: the places that groups of metrics ask for, the captions' clips and the
whole video; one instance per Ray actor.

Frames of a clip are the middle rows of equal bins, as in validation. Raw is the mean of the same frames of the raw
features, of a segment the mean over its clips.

Shapes: B clips, V segments, C clips of a segment, T frames, I width of the features.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvlm.data.collate import VideoRows
from hvlm.data.hierarchy import ParentSamplingConfig, clip_windows, draw_frames, rows_in_span
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.text import load_text_encoder
from hvlm.models.hiervl import TowerTextEncoder
from pipelines.evaluation.hiervl.checkpoint import load_hiervl
from pipelines.evaluation.hiervl.places import Floats32, Place, VideoVectors
from pipelines.evaluation.metric_table import OURS, RAW
from pipelines.evaluation.videos import LoadedVideo, VideoSource
from pipelines.training.hiervl.levels import read_video_levels
from pipelines.training.hiervl.questions import embed_segments

ASKED = "places"
"""Key of a manifest row with the places that are asked of its video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSetup:
    """What an embedder needs to start on any machine.

    Args:
        checkpoint_uri: a complete checkpoint. source: of the videos.
        rows_per_forward: frames of one forward pass.
        device: cpu or cuda. threads: CPU threads.
    """

    checkpoint_uri: str
    source: VideoSource
    rows_per_forward: int
    device: str
    threads: int


class _Frames(NamedTuple):
    """Rows of a video, and which of them are real: (T,) for a clip, (C, T) for a segment."""

    rows: NDArray[np.int64]
    mask: NDArray[np.bool_]


class HierVLEmbedder:
    """Loads the model once; every call embeds some manifest rows."""

    def __init__(self, setup: EmbedSetup) -> None:
        torch.set_num_threads(setup.threads)
        self._setup = setup
        self._device = torch.device(setup.device)
        loaded = load_hiervl(setup.checkpoint_uri, setup.device)
        self._model, self._sampling = loaded.model, loaded.sampling

    def embed(self, rows: Sequence[Mapping[str, Any]]) -> list[VideoVectors]:
        """Return the vectors of each manifest row's video, in their order."""
        return [self._embed(self._setup.source.load(row), row.get(ASKED, ())) for row in rows]

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], config: ClipConfig) -> dict[str, Floats32]:
        """Return (N, ·) vectors of texts, not normalised: `raw` as CLIP gives them, `ours` projected.

        A text tower that was trained encodes them anew for ours; raw is without its adapters.
        """
        encoder = load_text_encoder(config, self._setup.device)
        raw = encoder.encode_text(texts)
        trained = isinstance(self._model.text_encoder, TowerTextEncoder)
        given = torch.split(torch.from_numpy(encoder.tokenizer.tokens(texts) if trained else raw), config.batch_size)
        return {
            RAW: raw,
            OURS: np.concatenate([_float32(self._model.embed_text(each.to(self._device))) for each in given]),
        }

    @torch.inference_mode()
    def _embed(self, video: LoadedVideo, asked: Iterable[Place]) -> VideoVectors:
        meta = video.meta
        levels, texts = read_video_levels(meta)
        whole = Place(meta.video_id, *levels.span_s)
        clips = [Place(meta.video_id, *caption.span_s, self._sampling.num_frames) for caption in levels.captions]
        vectors = self._answers(video, levels.row_s, dict.fromkeys([whole, *clips, *asked]))
        told = levels.whole_summary
        activity = meta.columns.get("activity")
        return VideoVectors(
            key=meta.key,
            video_id=meta.video_id,
            split=meta.split,
            duration_s=meta.duration_s,
            num_rows=len(video.raw.times_s),
            num_bad_rows=video.raw.num_bad_rows,
            span_s=levels.span_s,
            captions=[{"text": text, "segment": clip.span_s} for clip, text in zip(clips, texts, strict=False)],
            summary=None if told is None else texts[len(levels.captions) + told],
            annotations=meta.annotations,
            activity=None if activity is None else str(activity),
            vectors=vectors,
            shuffled_PE=self._shuffled(video, levels.row_s, whole),
        )

    def _answers(self, video: LoadedVideo, row_s: float, places: Iterable[Place]) -> dict[str, dict[Place, Floats32]]:
        vectors: dict[str, dict[Place, Floats32]] = {OURS: {}, RAW: {}}
        for shape, found in _by_shape(video.model_input, row_s, places, self._sampling).items():
            size = max(1, self._setup.rows_per_forward // math.prod(shape))
            for some in (found[start : start + size] for start in range(0, len(found), size)):
                frames, mask = self._frames(video.model_input, [drawn for _, drawn in some])
                if len(shape) == 1:
                    ours = _float32(self._model.clip_encoder(frames, mask))
                else:
                    ours = _float32(self._model.embed_video(frames, mask, mask.any(2)))
                vectors[OURS] |= {place: ours[i] for i, (place, _) in enumerate(some)}
                vectors[RAW] |= {place: _mean(video.raw, drawn) for place, drawn in some}
        return vectors

    def _shuffled(self, video: LoadedVideo, row_s: float, whole: Place) -> Floats32 | None:
        found = [
            drawn for each in _by_shape(video.model_input, row_s, [whole], self._sampling).values() for _, drawn in each
        ]
        if not found:
            return None
        # Called by its key as in training's validation, so that both shuffle it alike.
        return _float32(
            embed_segments(self._model, *self._frames(video.model_input, found), [video.meta.key]).shuffled_VPE[0]
        )

    def _frames(self, rows: VideoRows, drawn: Sequence[_Frames]) -> tuple[Tensor, Tensor]:
        mask = np.stack([each.mask for each in drawn])
        frames = rows.features_TI[np.stack([each.rows for each in drawn])] * mask[..., None]
        return torch.from_numpy(frames).to(self._device), torch.from_numpy(mask).to(self._device)


def _by_shape(
    rows: VideoRows, row_s: float, places: Iterable[Place], sampling: ParentSamplingConfig
) -> dict[tuple[int, ...], list[tuple[Place, _Frames]]]:
    """The frames of every place that has any, by their shape: (T,) of clips, (C, T) of segments."""
    found: dict[tuple[int, ...], list[tuple[Place, _Frames]]] = {}
    for place in places:
        if place.num_frames is not None:
            drawn = _Frames(*draw_frames(rows_in_span(rows.times_s, row_s, place.span_s), place.num_frames, None))
        else:
            clips = list(_clips_of(rows, row_s, place, sampling))
            drawn = _Frames(np.stack([clip.rows_T for clip in clips]), np.stack([clip.mask_T for clip in clips]))
        if drawn.mask.any():
            found.setdefault(drawn.mask.shape, []).append((place, drawn))
    return found


def _clips_of(rows: VideoRows, row_s: float, place: Place, sampling: ParentSamplingConfig) -> Iterator[Any]:
    for start_s, end_s in clip_windows(place.span_s, sampling):
        yield draw_frames(rows_in_span(rows.times_s, row_s, (start_s, end_s)), sampling.num_frames, None)


def _mean(rows: VideoRows, drawn: _Frames) -> Floats32:
    """The mean of a clip's real frames; of a segment, the mean of its clips' means."""
    if drawn.mask.ndim == 1:
        return np.asarray(rows.features_TI[drawn.rows[drawn.mask]].mean(axis=0), dtype=np.float32)
    clips = zip(drawn.rows, drawn.mask, strict=True)
    means = [rows.features_TI[rows_T[mask_T]].mean(axis=0) for rows_T, mask_T in clips if mask_T.any()]
    return np.asarray(np.mean(means, axis=0), dtype=np.float32)


def _float32(tensor: Tensor) -> Floats32:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
