"""Samples of the two levels as tensors: frames of a clip, clips and captions of a video, and their texts.

A child sample is a caption with the frames of its clip; a parent sample is a summary with clips evenly over the part of
the video that it tells of and a choice of the captions that it covers. Frames are rows of the features, all encoders
side by side. What is drawn comes from a generator of (seed, epoch, sample), or is the middle one without a seed.

Shapes: B child samples, V videos, C clips, T frames, A verb classes, O noun classes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvlm.data.collate import VideoRows
from hvlm.data.hierarchy import (
    ParentSamplingConfig,
    clip_windows,
    draw_frames,
    draw_parent,
    rows_in_span,
    sample_generator,
    short_clip,
)
from hvlm.models.hiervl import ChildBatch, ParentBatch
from pipelines.training.hiervl.levels import Caption, Levels, summary_name
from pipelines.training.stream import FeatureReader
from pipelines.training.text import TextTable


class Draw(NamedTuple):
    """What the random choices of a sample come from."""

    seed: int
    epoch: int


class ChildSample(NamedTuple):
    """Caption number `caption` of video number `video`; the numbers after the last caption are its summaries."""

    video: int
    caption: int


class ParentSample(NamedTuple):
    """Summary number `summary` of video number `video`."""

    video: int
    summary: int


class ChildPart(NamedTuple):
    """Rows of the child level. caption_B: equal for equal texts in all of the data. verbs_BA, nouns_BO: multi-hot."""

    keys: list[str]
    batch: ChildBatch
    caption_B: Tensor
    verbs_BA: Tensor
    nouns_BO: Tensor
    num_bad_rows: int


class ParentPart(NamedTuple):
    """Rows of the parent level. video_V and summary_V: equal for equal ones in all of the data; span_s_V2: seconds.
    verbs_VA, nouns_VO: multi-hot, of the summaries' own tags."""

    keys: list[str]
    batch: ParentBatch
    has_captions_V: Tensor
    own_summary_V: Tensor
    video_V: Tensor
    span_s_V2: Tensor
    summary_V: Tensor
    verbs_VA: Tensor
    nouns_VO: Tensor
    num_bad_rows: int


P = TypeVar("P", bound=ChildPart | ParentPart)


def map_tensors(part: P, function: Callable[[Tensor], Tensor]) -> P:
    """Return a part with every tensor replaced."""

    def mapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        return type(value)(*(mapped(each) for each in value)) if isinstance(value, tuple) else value

    result: P = mapped(part)
    return result


@dataclass(frozen=True, slots=True)
class LevelReader:
    """Reads samples of one split.

    Args:
        features: the split's videos. levels: their annotations. texts: of all annotations.
        sampling: sizes.
    """

    features: FeatureReader
    levels: Levels
    texts: TextTable
    sampling: ParentSamplingConfig

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the split's videos, in the canonical order."""
        return self.features.table.index.keys

    def child_samples(self, *, with_summaries: bool = False) -> list[ChildSample]:
        """Return all captions of the split, with `with_summaries` its summaries too, in the order of the videos."""
        found = []
        for number, key in enumerate(self.keys):
            video = self.levels.videos[key]
            count = len(video.captions) + (len(video.summaries) if with_summaries else 0)
            found += [ChildSample(number, caption) for caption in range(count)]
        return found

    def parent_samples(self) -> list[ParentSample]:
        """Return all summaries of the split, in the order of the videos."""
        return [
            ParentSample(video, summary)
            for video, key in enumerate(self.keys)
            for summary in range(len(self.levels.videos[key].summaries))
        ]

    def child(
        self, samples: Sequence[ChildSample], draw: Draw | None, pool: ThreadPoolExecutor | None = None
    ) -> ChildPart:
        """Return child samples as tensors; a clip without a row of features is padding alone."""
        videos = self._videos([sample.video for sample in samples], pool)
        frames, masks, texts, captions, keys = [], [], [], [], []
        for sample in samples:
            key = self.keys[sample.video]
            name = f"{key}#{sample.caption}"
            rng = None if draw is None else sample_generator(draw.seed, draw.epoch, f"child:{name}")
            video = self.levels.videos[key]
            caption = self._caption(key, sample.caption, rng)
            rows = videos[sample.video]
            drawn = draw_frames(rows_in_span(rows.times_s, video.row_s, caption.span_s), self.sampling.num_frames, rng)
            frames.append(_taken(rows.features_TI, drawn.rows_T, drawn.mask_T))
            masks.append(drawn.mask_T)
            texts.append(int(self.texts.texts_of[key][sample.caption]))
            captions.append(caption)
            keys.append(name)
        return ChildPart(
            keys=keys,
            batch=ChildBatch(
                torch.from_numpy(np.stack(frames)),
                torch.from_numpy(np.stack(masks)),
                torch.from_numpy(self.texts.features_NX[texts]),
            ),
            caption_B=torch.from_numpy(self.texts.group_N[texts]),
            verbs_BA=_multi_hot([caption.verbs for caption in captions], self.levels.num_verbs),
            nouns_BO=_multi_hot([caption.nouns for caption in captions], self.levels.num_nouns),
            num_bad_rows=sum(rows.num_bad_rows for rows in videos.values()),
        )

    def parent(
        self, samples: Sequence[ParentSample], draw: Draw | None, pool: ThreadPoolExecutor | None = None
    ) -> ParentPart:
        """Return parent samples as tensors."""
        videos = self._videos([sample.video for sample in samples], pool)
        clips, frame_masks, captions, caption_masks, texts = [], [], [], [], []
        names = [summary_name(self.keys[sample.video], sample.summary) for sample in samples]
        told = [self.levels.videos[self.keys[sample.video]].summaries[sample.summary] for sample in samples]
        for sample, name, summary in zip(samples, names, told, strict=True):
            rng = None if draw is None else sample_generator(draw.seed, draw.epoch, f"parent:{name}")
            video, rows = self.levels.videos[self.keys[sample.video]], videos[sample.video]
            windows = clip_windows(summary.span_s, self.sampling)
            in_windows = [rows_in_span(rows.times_s, video.row_s, (start, end)) for start, end in windows]
            drawn = draw_parent(in_windows, len(summary.captions), self.sampling, rng)
            of_video = self.texts.texts_of[self.keys[sample.video]]
            of_captions = of_video[list(summary.captions) or [0]]  # without captions all places are masked
            clips.append(_taken(rows.features_TI, drawn.rows_CT, drawn.frame_mask_CT))
            frame_masks.append(drawn.frame_mask_CT)
            captions.append(self.texts.features_NX[of_captions[drawn.captions_C]])
            caption_masks.append(drawn.caption_mask_C)
            texts.append(int(of_video[len(video.captions) + sample.summary]))
        frame_mask_VCT = torch.from_numpy(np.stack(frame_masks))
        caption_mask_VC = torch.from_numpy(np.stack(caption_masks))
        return ParentPart(
            keys=names,
            batch=ParentBatch(
                clips_VCTI=torch.from_numpy(np.stack(clips)),
                frame_mask_VCT=frame_mask_VCT,
                clip_mask_VC=frame_mask_VCT.any(2),
                captions_VCX=torch.from_numpy(np.stack(captions)),
                caption_mask_VC=caption_mask_VC,
                summary_VX=torch.from_numpy(self.texts.features_NX[texts]),
            ),
            has_captions_V=caption_mask_VC.any(1),
            own_summary_V=torch.tensor([summary.own for summary in told]),
            video_V=torch.tensor([sample.video for sample in samples]),
            span_s_V2=torch.tensor([summary.span_s for summary in told]),
            summary_V=torch.from_numpy(self.texts.group_N[texts]),
            verbs_VA=_multi_hot([summary.verbs for summary in told], self.levels.num_verbs),
            nouns_VO=_multi_hot([summary.nouns for summary in told], self.levels.num_nouns),
            num_bad_rows=sum(rows.num_bad_rows for rows in videos.values()),
        )

    def _videos(self, numbers: Sequence[int], pool: ThreadPoolExecutor | None) -> dict[int, VideoRows]:
        distinct = list(dict.fromkeys(numbers))
        return dict(zip(distinct, (pool.map if pool else map)(self.features.video, distinct), strict=True))

    def _caption(self, key: str, number: int, rng: np.random.Generator | None) -> Caption:
        video = self.levels.videos[key]
        if number < len(video.captions):
            return video.captions[number]
        summary = video.summaries[number - len(video.captions)]
        span_s = summary.span_s if rng is None else short_clip(summary.span_s, rng)
        return Caption(*span_s, summary.verbs, summary.nouns)


def _taken(features_TI: NDArray[np.float32], rows: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    taken: NDArray[np.float32] = features_TI[rows] * mask[..., None]
    return taken


def _multi_hot(ids: Sequence[Sequence[int]], width: int) -> Tensor:
    hot = torch.zeros(len(ids), width, dtype=torch.uint8)
    for row, each in enumerate(ids):
        hot[row, list(each)] = 1
    return hot
