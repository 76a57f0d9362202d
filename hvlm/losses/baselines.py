"""The losses of the baselines: cross-entropy with labels, and InfoNCE against a queue.

Shapes: N videos of the global batch, C classes, E width of the embeddings, Q queue.
"""

import torch
from torch import Tensor
from torch.nn import functional


def label_loss(logits_NC: Tensor, label_NC: Tensor) -> Tensor:
    """Cross-entropy in float32 with a target that is uniform over a video's labels; a video without labels is left out.

    Args:
        logits_NC: scores of the videos.
        label_NC: bool.

    Returns:
        scalar float32; 0 when no video has a label.
    """
    count_N = label_NC.sum(1)
    target_NC = label_NC.float() / count_N.clamp_min(1)[:, None]
    loss_N = functional.cross_entropy(logits_NC.float(), target_NC, reduction="none")  # 0 where there is no target
    return loss_N.sum() / (count_N > 0).sum().clamp_min(1)


def label_hits(logits_NC: Tensor, label_NC: Tensor) -> Tensor:
    """Share of the labelled videos whose best class is one of their labels; NaN without a labelled video."""
    labelled_N = label_NC.any(1)
    hit_N = label_NC.gather(1, logits_NC.argmax(1, keepdim=True))[:, 0]
    return hit_N[labelled_N].float().mean()


def queue_logits(query_NE: Tensor, key_NE: Tensor, queue_QE: Tensor, temperature: float) -> Tensor:
    """(N, 1 + Q): similarity of each query to its own key, then to the keys in the queue, over the temperature.

    All are unit vectors; only the query has a gradient.
    """
    own_N1 = (query_NE * key_NE.detach()).sum(1, keepdim=True)
    return torch.cat([own_N1, query_NE @ queue_QE.detach().T], dim=1) / temperature


def queue_loss(logits_NK: Tensor) -> Tensor:
    """−mean log p(own key) of `queue_logits`.

    Source: He et al. 2020 (MoCo), eq. 1.
    """
    return functional.cross_entropy(logits_NK, logits_NK.new_zeros(len(logits_NK), dtype=torch.long))
