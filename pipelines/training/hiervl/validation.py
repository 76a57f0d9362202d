"""Validation of HierVL on the dev split: every summary's segment once, whatever the number of workers.

Segments (and captions) are dealt to the ranks in small groups, their vectors are gathered and put in order, and every
rank calculates the same metrics from them: retrieval of segments by summaries and of clips by captions, SummaryMCQ and
ShuffleMCQ (5-way, chance 0.2), and the collapse monitors of the clips' vectors.

Shapes: V videos, C clips, E joint space, Q questions, O options, P permutations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from hvlm.data.question_builder import QuestionConfig, build_questions
from hvlm.data.readers.egoclip import ClipRow
from hvlm.losses.monitors import collapse_monitors
from hvlm.metrics.multiple_choice import choice_accuracy, shuffle_mcq
from hvlm.models.hiervl import HierVL
from pipelines.training.hiervl.questions import SEED, embed_segments, shuffle_scores, wrong_texts
from pipelines.training.hiervl.samples import ChildSample, LevelReader, ParentSample
from pipelines.training.retrieval import retrieval_figures
from pipelines.training.step import autocast

MONITOR_PREFIX = "dev/clip/"
RECALL = "dev/video/text_to_video/recall_at_1"
SUMMARY_MCQ = "dev/video/summary_mcq/accuracy"
MAX_CAPTIONS = 4096
"""Captions of clip retrieval, evenly over the split: their similarities are held at once (64 MiB)."""
_VIDEOS_AT_ONCE, _CAPTIONS_AT_ONCE = 16, 256

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Numbered(Generic[T]):
    """What one group gave, with its place."""

    number: int
    vectors: T


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Of V summaries' segments: unit vectors, and of ShuffleMCQ's options S * (O - 1) permutations."""

    video_VE: Array
    summary_VE: Array
    summary_V: Array
    clips_VCE: Array
    clip_mask_VC: Array
    shuffled_VPE: Array


def validate(model: nn.Module, reader: LevelReader, device: torch.device, precision: str) -> dict[str, float]:
    """Return the dev metrics by name; empty when no video has a summary and none a caption. All ranks call together.

    Args:
        model: `HierVL`, not its wrapper; it is left as it was.
        reader: of the dev split.
        device: of the model. precision: of the forward pass.
    """
    if not isinstance(model, HierVL):
        raise TypeError(f"validation needs a HierVL, not a {type(model).__name__}")
    videos, captions = reader.parent_samples(), reader.child_samples()
    step = max(1, -(-len(captions) // MAX_CAPTIONS))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            whole = [
                _Numbered(number, _embed_videos(model, reader, group, (device, precision)))
                for number, group in _dealt(videos, _VIDEOS_AT_ONCE)
            ]
            clips = [
                _Numbered(number, _embed_captions(model, reader, group, (device, precision)))
                for number, group in _dealt(captions[::step], _CAPTIONS_AT_ONCE)
            ]
    finally:
        model.train(was_training)
    metrics: dict[str, float] = {}
    if of_clips := _gathered(clips):
        video, text, group = (np.concatenate([each[i] for each in of_clips]) for i in range(3))
        metrics |= retrieval_figures("dev/clip", video, text, group)
    if of_videos := _gathered(whole):
        joined = _Vectors(
            *(np.concatenate([getattr(each, name) for each in of_videos]) for name in _Vectors.__dataclass_fields__)
        )
        metrics |= retrieval_figures("dev/video", joined.video_VE, joined.summary_VE, joined.summary_V)
        metrics |= _summary_mcq(reader, videos, joined) | _shuffle_mcq(joined)
        clips_VCE, mask_VC = torch.from_numpy(joined.clips_VCE), torch.from_numpy(joined.clip_mask_VC)
        # Clips half a video apart are those that have no reason to be alike.
        metrics |= collapse_monitors(clips_VCE, mask_VC, max(1, mask_VC.shape[1] // 2), MONITOR_PREFIX)
    return metrics


def _dealt(items: Sequence[T], at_once: int) -> list[tuple[int, list[T]]]:
    """This rank's numbered groups."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    groups = [list(items[i : i + at_once]) for i in range(0, len(items), at_once)]
    return [(number, groups[number]) for number in range(rank, len(groups), world_size)]


def _gathered(mine: list[_Numbered[T]]) -> list[T]:
    """What all ranks have, in the order of the groups."""
    everyone: list[list[_Numbered[T]]] = [mine]
    if dist.is_initialized() and dist.get_world_size() > 1:
        everyone = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyone, mine)
    return [each.vectors for each in sorted((e for rank in everyone for e in rank), key=lambda each: each.number)]


def _embed_captions(
    model: HierVL, reader: LevelReader, samples: Sequence[ChildSample], where: tuple[torch.device, str]
) -> tuple[Array, Array, Array]:
    """Clips, captions, and the captions' groups: -1 for a clip without a row of features."""
    part = reader.child(samples, None)
    batch = type(part.batch)(*(each.to(where[0]) for each in part.batch))
    with autocast(*where):
        output = model(batch, "child")
    group = torch.where(part.batch.frame_mask_BT.any(1), part.caption_B, -1)
    return _unit(output.video_BE), _unit(output.text_BE), group.numpy()


def _embed_videos(
    model: HierVL, reader: LevelReader, videos: Sequence[ParentSample], where: tuple[torch.device, str]
) -> _Vectors:
    part = reader.parent(videos, None)
    batch = type(part.batch)(*(each.to(where[0]) for each in part.batch))
    with autocast(*where):
        of = embed_segments(model, batch.clips_VCTI, batch.frame_mask_VCT, part.keys)
        summary_VE = model.embed_text(batch.summary_VX)
    return _Vectors(
        video_VE=_unit(of.video_VE),
        summary_VE=_unit(summary_VE),
        summary_V=part.summary_V.numpy(),
        clips_VCE=of.clips_VCE.float().cpu().numpy(),
        clip_mask_VC=part.batch.clip_mask_VC.numpy(),
        shuffled_VPE=_unit(of.shuffled_VPE),
    )


def _unit(x: Tensor) -> Array:
    vectors: Array = functional.normalize(x.float(), dim=-1).cpu().numpy()
    return vectors


def _summary_mcq(reader: LevelReader, videos: Sequence[ParentSample], of: _Vectors) -> dict[str, float]:
    """Which of five segments of different videos a summary tells of; nothing where fewer than five videos have one."""
    rows = []
    for i, (video, number) in enumerate(videos):
        key = reader.keys[video]
        # A summary's group stands for its text: the builder only compares texts. The index says which row was drawn.
        text = str(int(of.summary_V[i]))
        rows.append(ClipRow(key, reader.levels.videos[key].summaries[number].span_s, text, clip_index=i))
    questions = build_questions(rows, QuestionConfig(kind="summary", seed=SEED)).questions
    if not questions:
        return {}
    options_QO = np.array([[choice.clip_index for choice in each.choices] for each in questions], dtype=np.int64)
    queries_Q = np.array([each.query.clip_index for each in questions], dtype=np.int64)
    score_QO = np.einsum("qe,qoe->qo", of.summary_VE[queries_Q], of.video_VE[options_QO])
    if not np.isfinite(score_QO).all():
        return {}
    result = choice_accuracy(score_QO, np.array([each.answer for each in questions]))
    return {SUMMARY_MCQ: result.accuracy, "dev/video/summary_mcq/num_questions": float(result.num_questions)}


def _shuffle_mcq(of: _Vectors) -> dict[str, float]:
    """ShuffleMCQ under the tie rule, with the true text and with that of the next video whose summary differs."""
    true_QE = of.summary_VE
    wrong_Q = wrong_texts(of.summary_V)
    if not (np.isfinite(of.shuffled_VPE).all() and np.isfinite(of.video_VE).all() and np.isfinite(true_QE).all()):
        return {}
    metrics = {"dev/video/shuffle_mcq/accuracy": _shuffle_accuracy(of, true_QE)}
    if wrong_Q is not None:
        metrics["dev/video/shuffle_mcq/accuracy_wrong_text"] = _shuffle_accuracy(of, true_QE[wrong_Q])
    return metrics


def _shuffle_accuracy(of: _Vectors, text_QE: Array) -> float:
    score_SQO = shuffle_scores(text_QE, of.video_VE, of.shuffled_VPE)
    return float(shuffle_mcq(score_SQO, np.zeros(score_SQO.shape[:2], np.int64)).accuracy)
