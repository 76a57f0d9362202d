"""Embeds the videos of a store with a trained model and reduces each to a `VideoRecord`; one instance per Ray actor.

Ours are the encoder's rows h and the pyramid's top node; raw are the frozen features that the model read, each
encoder's rows divided by their norm so that none outweighs the others. Both are on the same time grid and leave out the
same bad rows.

Shapes: B videos of a forward pass, T rows, D width, E width of the joint space, P captions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvlm.data.collate import VideoRows, collate
from hvlm.data.samples import SampleMeta
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.text import load_text_encoder
from hvlm.metrics.classification import unit_rows
from hvlm.metrics.consistency import boundary_pairs, distant_pair_cosine, temporal_consistency
from hvlm.metrics.linear_probe import LinearProbe
from hvlm.metrics.localiser import Localiser, LocaliserConfig, LocaliserFit, LocaliserVideo, fit_localiser
from hvlm.metrics.proposals import ProposalConfig, propose_segments, row_cells
from hvlm.models.hierarchical_vlm import HierarchicalVLM, Output
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig, PyramidLevel
from pipelines.evaluation.hierarchical_vlm.labels import segment_spans
from pipelines.evaluation.hierarchical_vlm.records import (
    HEAD,
    PROBE,
    Floats32,
    KindRecord,
    LocalisedVideo,
    VideoRecord,
    even_sample,
)
from pipelines.evaluation.metric_table import KINDS, OURS, RAW
from pipelines.evaluation.retrieval_group import TextSpace
from pipelines.evaluation.videos import LoadedVideo, VideoSource
from pipelines.training.baselines.classifier import load_classifier
from pipelines.training.checkpoints import load_model

VideoEmbedding = Literal["top", "mean", "mean_and_top"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSetup:
    """What an embedder needs to start on any machine.

    Args:
        checkpoint_uri: a complete checkpoint. source: of the videos.
        video_embedding: what probes and k-NN read of ours.
        rows_per_video: rows that a record keeps. rows_per_forward: padded rows of one forward pass.
        device: cpu or cuda. threads: CPU threads.
    """

    checkpoint_uri: str
    source: VideoSource
    video_embedding: VideoEmbedding
    rows_per_video: int
    rows_per_forward: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finders:
    """What finds segments: a frame probe (class 0 = background) and a localisation head per kind of features."""

    probes: Mapping[str, LinearProbe]
    localisers: Mapping[str, Localiser]
    proposals: ProposalConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LocaliserTask:
    """What localisation heads are fitted to: the classes by their names, and how."""

    names: Sequence[str]
    config: LocaliserConfig
    proposals: ProposalConfig
    seed: int


class Embedder:
    """Loads the model once; every call embeds some manifest rows."""

    def __init__(self, setup: EmbedSetup) -> None:
        torch.set_num_threads(setup.threads)
        self._setup = setup
        self._device = torch.device(setup.device)
        self._model: HierarchicalVLM = load_model(setup.checkpoint_uri, setup.device)[0]
        self._classifier = load_classifier(setup.checkpoint_uri)

    def embed(self, rows: Sequence[Mapping[str, Any]]) -> list[VideoRecord]:
        """Return one record per manifest row, in their order."""
        records: dict[str, VideoRecord] = {}
        for videos in self._forward_groups(self._load(rows)):
            output = self._forward([video.model_input for video in videos])
            for index, video in enumerate(videos):
                records[video.meta.key] = self._record(video, output, index)
        return [records[str(row["key"])] for row in rows]

    def fit_localisers(
        self, train: Sequence[Mapping[str, Any]], dev: Sequence[Mapping[str, Any]], task: LocaliserTask
    ) -> dict[str, Localiser]:
        """Return a localisation head per kind of features, fitted on the manifest rows of train, chosen on dev."""
        fitted, chosen = ([rows for _, rows in self._frozen_rows(part, task.names)] for part in (train, dev))
        return {
            kind: fit_localiser(
                [rows[kind] for rows in fitted],
                [rows[kind] for rows in chosen],
                LocaliserFit(self._pyramid(kind), len(task.names), task.config, task.proposals, task.seed),
            )
            for kind in KINDS
        }

    def localise(self, rows: Sequence[Mapping[str, Any]], finders: Finders) -> list[LocalisedVideo]:
        """Return the segments that are found in each manifest row."""
        found = []
        for meta, frozen in self._frozen_rows(rows, ()):
            by_probe, by_head = {}, {}
            for kind, video in frozen.items():
                probability_TC = finders.probes[kind].probabilities(video.rows_TD)[:, 1:]
                by_probe[kind] = propose_segments(probability_TC, video.cell_T2, finders.proposals)
                by_head[kind] = finders.localisers[kind].find(video, self._pyramid(kind), finders.proposals)
            segments = {PROBE: by_probe, HEAD: by_head}
            found.append(LocalisedVideo(key=meta.key, video_id=meta.video_id, segments=segments))
        return found

    def encode_texts(self, texts: Sequence[str], config: ClipConfig) -> dict[str, Floats32]:
        """Return (N, E) text features per space: `raw` as CLIP gives them, `ours` projected if the model is aligned."""
        raw = load_text_encoder(config, self._setup.device).encode_text(texts)
        if self._model.alignment is None:
            return {RAW: raw}
        with torch.inference_mode():
            ours = self._model.embed_text(torch.from_numpy(raw).to(self._device))
        return {RAW: raw, OURS: _float32(ours)}

    def _frozen_rows(
        self, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
    ) -> Iterator[tuple[SampleMeta, dict[str, LocaliserVideo]]]:
        """Each video's rows of both kinds, with the true segments of the classes in `names`."""
        number = {name: i for i, name in enumerate(names)}
        for videos in self._forward_groups(self._load(rows)):
            output = self._forward([video.model_input for video in videos])
            for index, (_, raw, _, meta) in enumerate(videos):
                hidden = _real(output.hidden_BTD[index], len(raw.times_s))
                known = [item for item in meta.annotations if str(item["label"]) in number]
                yield (
                    meta,
                    {
                        kind: LocaliserVideo(
                            key=meta.key,
                            rows_TD=features,
                            cell_T2=row_cells(
                                raw.times_s, meta.stride_s, meta.clip_s, meta.duration_s, gaps=meta.has_gaps
                            ),
                            duration_s=meta.duration_s,
                            span_S2=segment_spans(known),
                            label_S=np.array([number[str(item["label"])] for item in known], dtype=np.int64),
                        )
                        for kind, features in ((OURS, hidden), (RAW, raw.features_TI))
                    },
                )

    def _pyramid(self, kind: str) -> AttentionPyramid:
        """The model's own pyramid; of means for raw rows, and where the model has none."""
        own = self._model.pyramid
        if kind == OURS and isinstance(own, AttentionPyramid):
            return own
        return mean_pyramid(self._model.d_model if kind == OURS else sum(self._model.input_dims), self._device)

    def _load(self, rows: Sequence[Mapping[str, Any]]) -> list[LoadedVideo]:
        return [self._setup.source.load(row) for row in rows]

    def _forward_groups(self, videos: Sequence[LoadedVideo]) -> Iterator[list[LoadedVideo]]:
        """Videos of like lengths together, so that little is padding; a very long one goes alone."""
        group: list[LoadedVideo] = []
        for video in sorted(videos, key=lambda video: len(video.raw.times_s)):
            if group and (len(group) + 1) * len(video.raw.times_s) > self._setup.rows_per_forward:
                yield group
                group = []
            group.append(video)
        if group:
            yield group

    @torch.inference_mode()
    def _forward(self, videos: Sequence[VideoRows]) -> Output:
        longest = max(len(video.times_s) for video in videos)
        batch = collate([""] * len(videos), videos, None, longest).to(self._device)
        output: Output = self._model(batch.features_BTI, batch.times_BT, batch.mask_BT)
        return output

    def _record(self, video: LoadedVideo, output: Output, index: int) -> VideoRecord:
        meta, times_s = video.meta, video.raw.times_s
        hidden = _real(output.hidden_BTD[index], len(times_s))
        levels = [_level(level, index) for level in output.levels]
        raw_levels = mean_levels(video.raw, self._device)
        embeddings = {OURS: _video_embedding(hidden, levels[-1], self._setup.video_embedding)}
        embeddings[RAW] = video.raw.features_TI.mean(axis=0)
        sampled = even_sample(len(times_s), self._setup.rows_per_video)
        return VideoRecord(
            key=meta.key,
            video_id=meta.video_id,
            split=meta.split,
            duration_s=meta.duration_s,
            stride_s=meta.stride_s,
            num_rows=len(times_s),
            num_bad_rows=video.raw.num_bad_rows,
            sampled_N=sampled,
            centre_s_N=(times_s + meta.clip_s / 2)[sampled],
            kinds={
                OURS: _kind_record(hidden, embeddings[OURS], levels, (video, sampled)),
                RAW: _kind_record(video.raw.features_TI, embeddings[RAW], raw_levels, (video, sampled)),
            },
            spaces=self._text_spaces(video, output.video_BE[index]),
            annotations=meta.annotations,
            captions=meta.captions,
            summary=meta.summary,
            activity=_activity(meta),
            label_logits_C=None if self._classifier is None else self._classifier.logits(levels[-1][0]),
        )

    def _text_spaces(self, video: LoadedVideo, video_E: Tensor) -> dict[str, TextSpace]:
        spans = [caption["segment"] for caption in video.meta.captions]
        spaces = {}
        if self._model.alignment is not None:
            spaces[OURS] = TextSpace(
                video_E=_float32(video_E), captions_PE=self._embed_spans(video.model_input, spans, video.meta.clip_s)
            )
        if video.clip is not None:
            unit = unit_rows(video.clip.features_TD)
            centres = video.clip.times_s + video.clip.clip_s / 2
            parts = [unit[rows_in_span(centres, span)].mean(axis=0) for span in spans]
            captions = np.array(parts, dtype=np.float32).reshape(len(spans), unit.shape[1])
            spaces[RAW] = TextSpace(video_E=unit.mean(axis=0).astype(np.float32), captions_PE=captions)
        return spaces

    def _embed_spans(self, rows: VideoRows, spans: Sequence[Sequence[float]], clip_s: float) -> Floats32:
        """Every span as a video of its own that starts at 0 s: how a clip is searched for by its caption."""
        if not spans:
            return np.empty((0, self._model.config.alignment.dim), dtype=np.float32)
        parts = [rows_in_span(rows.times_s + clip_s / 2, span) for span in spans]
        clips = [VideoRows(rows.features_TI[part], rows.times_s[part] - rows.times_s[part[0]], 0) for part in parts]
        step = max(1, self._setup.rows_per_forward // max(len(part) for part in parts))
        embedded = [self._forward(clips[start : start + step]).video_BE for start in range(0, len(clips), step)]
        return _float32(torch.cat(embedded))


def rows_in_span(centre_s_T: NDArray[np.float64], span_s: Sequence[float]) -> NDArray[np.int64]:
    """Return the rows whose centre lies in [start, end); the row nearest to the middle when there is none."""
    inside = np.flatnonzero((centre_s_T >= span_s[0]) & (centre_s_T < span_s[1]))
    if len(inside):
        return inside
    return np.array([np.argmin(np.abs(centre_s_T - (span_s[0] + span_s[1]) / 2))], dtype=np.int64)


def mean_pyramid(width: int, device: torch.device) -> AttentionPyramid:
    """Return the pyramid that takes means: the attention pyramid with all scores 0."""
    return AttentionPyramid(PyramidConfig(), width).to(device)


@torch.inference_mode()
def mean_levels(rows: VideoRows, device: torch.device) -> list[Floats32]:
    """Return the levels of a pyramid that takes means, base first."""
    features = torch.from_numpy(rows.features_TI)[None].to(device)
    times = torch.from_numpy(rows.times_s.astype(np.float32))[None].to(device)
    pyramid = mean_pyramid(features.shape[-1], device)
    levels = pyramid(features, times, torch.ones(features.shape[:2], dtype=torch.bool, device=device))
    return [_level(level, 0) for level in levels]


def _kind_record(
    rows_TD: Floats32, video_D: Floats32, levels: Sequence[Floats32], place: tuple[LoadedVideo, NDArray[np.int64]]
) -> KindRecord:
    video, sampled = place
    times_s = video.raw.times_s
    return KindRecord(
        video_D=video_D,
        rows_ND=rows_TD[sampled],
        mean_unit_D=unit_rows(rows_TD).mean(axis=0).astype(np.float32),
        temporal_consistency=_consistency(rows_TD),
        distant_cosine=distant_pair_cosine(rows_TD, times_s),
        level_consistency=tuple(_consistency(level) for level in levels[1:]),
        boundary=boundary_pairs(rows_TD, times_s + video.meta.clip_s / 2, segment_spans(video.meta.annotations)),
    )


def _consistency(rows_TD: Floats32) -> float:
    return float(temporal_consistency(rows_TD[None], np.ones((1, len(rows_TD)), dtype=bool))[0])


def _video_embedding(hidden_TD: Floats32, top_1D: Floats32, kind: VideoEmbedding) -> Floats32:
    mean: Floats32 = hidden_TD.mean(axis=0)
    if kind == "mean":
        return mean
    top: Floats32 = top_1D[0]
    return top if kind == "top" else np.concatenate([mean, top])


def _level(level: PyramidLevel, index: int) -> Floats32:
    return _real(level.nodes_BLD[index], int(level.mask_BL[index].sum()))


def _real(rows_TD: Tensor, count: int) -> Floats32:
    return _float32(rows_TD[:count])


def _float32(tensor: Tensor) -> Floats32:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def _activity(meta: SampleMeta) -> str | None:
    value = meta.columns.get("activity")
    return None if value is None else str(value)
