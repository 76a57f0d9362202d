"""Questions about whole videos: how a segment and its shuffled copies are embedded, and how ShuffleMCQ is scored.

Validation on the dev split and the evaluation of a checkpoint ask the same questions. ShuffleMCQ's wrong options are
permutations of the right video's own clips, so only the order tells; the same with the text of another video says how
much of it is had by any natural order.

Shapes: V videos, C clips, T frames, I width of the features, E joint space, O options, S permutations' seeds,
Q questions, P = S * (O - 1) permutations.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvlm.data.hierarchy import sample_generator
from hvlm.data.question_builder import NUM_WRONG
from hvlm.models.hiervl import HierVL

SEED = 1
"""Of questions and permutations: the same ones whenever a model is measured."""
NUM_SHUFFLES = 5

Array = NDArray[Any]


class SegmentVectors(NamedTuple):
    """Of V segments, not normalised: their clips aggregated, the clips, and P permutations of the clips aggregated."""

    video_VE: Tensor
    clips_VCE: Tensor
    shuffled_VPE: Tensor


def embed_segments(model: HierVL, clips_VCTI: Tensor, frame_mask_VCT: Tensor, names: Sequence[str]) -> SegmentVectors:
    """Return the vectors of segments, on the device of their frames.

    Args:
        model: not its wrapper.
        clips_VCTI: frames of the clips.
        frame_mask_VCT: bool, True = real; a clip without a real frame is padding.
        names: of the segments; the permutations follow from them, so they are the same in any batch on any worker.
    """
    V, C = frame_mask_VCT.shape[:2]
    mask_VC = frame_mask_VCT.any(2)
    clips_VCE = model.clip_encoder(clips_VCTI.flatten(0, 1), frame_mask_VCT.flatten(0, 1)).view(V, C, -1)
    order_VPC = torch.from_numpy(np.stack([_permutations(name, C) for name in names])).to(clips_VCTI.device)
    shuffled = [
        model.aggregator(_permuted(clips_VCE, order_VPC[:, p]), _permuted(mask_VC, order_VPC[:, p]))
        for p in range(order_VPC.shape[1])
    ]
    return SegmentVectors(model.aggregator(clips_VCE, mask_VC), clips_VCE, torch.stack(shuffled, 1))


def shuffle_scores(text_QE: Array, video_QE: Array, shuffled_QPE: Array) -> Array:
    """Return (S, Q, O) cosines of texts with their options, the right one first: the tie rule looks at no place.

    Args:
        text_QE: unit vectors of the texts, the true or other ones.
        video_QE: unit vectors of the videos in their own order.
        shuffled_QPE: unit vectors of their permutations.
    """
    right_Q1 = np.einsum("qe,qe->q", text_QE, video_QE)[:, None]
    wrong_QSO = np.einsum("qe,qpe->qp", text_QE, shuffled_QPE).reshape(len(text_QE), NUM_SHUFFLES, NUM_WRONG)
    return np.stack([np.concatenate([right_Q1, wrong_QSO[:, s]], 1) for s in range(NUM_SHUFFLES)])


def wrong_texts(group_Q: Array) -> list[int] | None:
    """Return for each video the next one, going round, whose text is another; None where all texts are equal.

    Args:
        group_Q: equal for equal texts.
    """
    found = [_other_text(group_Q, video) for video in range(len(group_Q))]
    return None if None in found else [other for other in found if other is not None]


def _other_text(group_Q: Array, video: int) -> int | None:
    count = len(group_Q)
    later = ((video + step) % count for step in range(1, count))
    return next((other for other in later if group_Q[other] != group_Q[video]), None)


def _permutations(name: str, num_clips: int) -> NDArray[np.int64]:
    """(P, C) orders, none of them the right one, as long as there is another."""
    rng = sample_generator(SEED, 0, f"shuffle:{name}")
    right = np.arange(num_clips)
    orders: list[NDArray[np.int64]] = []
    while len(orders) < NUM_SHUFFLES * NUM_WRONG:
        order = rng.permutation(num_clips)
        if num_clips == 1 or (order != right).any():
            orders.append(order)
    return np.stack(orders)


def _permuted(x_VC: Tensor, order_VC: Tensor) -> Tensor:
    return x_VC[torch.arange(len(x_VC), device=x_VC.device)[:, None], order_VC]
