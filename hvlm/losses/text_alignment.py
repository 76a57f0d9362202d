"""Symmetric vision-language InfoNCE with several positives per row.

Shapes: N videos of the global batch, E width of the joint space.
"""

from torch import Tensor


def text_alignment_loss(video_NE: Tensor, text_NE: Tensor, group_N: Tensor, logit_scale: Tensor) -> Tensor:
    """½ (CE(video → text) + CE(text → video)); the target is uniform over the rows with the same caption.

    Args:
        video_NE: unit-norm video embeddings of the global batch.
        text_NE: unit-norm text embeddings, row n belongs to video n.
        group_N: int64, equal for equal captions; −1 = no text: neither anchor, positive nor negative.
        logit_scale: scalar, 1 / temperature.

    Returns:
        scalar float32; 0 when no video has text.

    Source: Radford et al. 2021 (CLIP), symmetric; Khosla et al. 2020, eq. 2 for several positives.
    """
    valid_N = group_N >= 0
    pair_NN = valid_N[:, None] & valid_N[None]
    logits_NN = (logit_scale.float() * video_NE.float() @ text_NE.float().T).masked_fill(~pair_NN, -1e30)
    positive_NN = ((group_N[:, None] == group_N[None]) & pair_NN).float()
    target_NN = positive_NN / positive_NN.sum(1, keepdim=True).clamp_min(1.0)
    # `positive` is symmetric, so the same target serves both directions.
    video_to_text_N = -(target_NN * logits_NN.log_softmax(1)).sum(1)
    text_to_video_N = -(target_NN * logits_NN.T.log_softmax(1)).sum(1)
    weight_N = valid_N.float()
    return 0.5 * ((video_to_text_N + text_to_video_N) * weight_N).sum() / weight_N.sum().clamp_min(1.0)
