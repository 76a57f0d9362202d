"""Random contiguous parts of padded videos: two of them are two views of a video.

Shapes: B local batch, T frames (padded), I width of the features.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Padded videos: features, start of each row in seconds, True = real (a prefix of ones)."""

    features_BTI: Tensor
    times_BT: Tensor
    mask_BT: Tensor


def crop_rows(rows: Rows, share_B2: Tensor, min_share: float) -> Rows:
    """Return one contiguous part of each video, as a video of its own that starts at 0 s.

    Args:
        rows: padded videos.
        share_B2: uniform in [0, 1): where between `min_share` and all of the rows the length lies, and where between
            the first and the last possible place the start.
        min_share: shortest part, as a share of the rows.
    """
    length_B = rows.mask_BT.sum(1)
    share_B = min_share + (1 - min_share) * share_B2[:, 0]
    num_B = (share_B * length_B).ceil().long().minimum(length_B)
    first_B = (share_B2[:, 1] * (length_B - num_B + 1)).long().minimum(length_B - num_B)
    place_T = torch.arange(rows.mask_BT.shape[1], device=length_B.device)
    mask_BT = place_T < num_B[:, None]
    index_BT = (first_B[:, None] + place_T).clamp(max=len(place_T) - 1)
    times_BT = rows.times_BT.gather(1, index_BT)
    features_BTI = rows.features_BTI.gather(1, index_BT[..., None].expand_as(rows.features_BTI))
    return Rows(
        torch.where(mask_BT[..., None], features_BTI, 0.0),
        torch.where(mask_BT, times_BT - times_BT[:, :1], 0.0),
        mask_BT,
    )
