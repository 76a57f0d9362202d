import math

import torch
from torch.nn import functional

from hvlm.losses.text_alignment import text_alignment_loss

SCALE = torch.tensor(20.0)


def embeddings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    unit = [functional.normalize(torch.randn(count, 8, generator=g), dim=-1) for _ in range(2)]
    return unit[0], unit[1]


def test_distinct_captions_equal_symmetric_cross_entropy() -> None:
    video, text = embeddings(5)
    logits = 20 * video @ text.T
    target = torch.arange(5)
    expected = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(text_alignment_loss(video, text, target, SCALE), expected)


def test_equal_captions_are_positives_of_each_other() -> None:
    video, text = embeddings(3)
    video, text = video[[0, 0, 1]], text[[0, 0, 1]]
    got = text_alignment_loss(video, text, torch.tensor([4, 4, 9]), SCALE)
    logits = (20 * video @ text.T).log_softmax(1), (20 * text @ video.T).log_softmax(1)
    by_hand = [-(row[0, 0] + row[0, 1] + row[1, 0] + row[1, 1]) / 2 - row[2, 2] for row in logits]
    torch.testing.assert_close(got, (by_hand[0] + by_hand[1]) / 6)


def test_videos_without_text_have_no_effect() -> None:
    video, text = embeddings(4)
    some = text_alignment_loss(video, text, torch.tensor([0, -1, 2, -1]), SCALE)
    only = text_alignment_loss(video[[0, 2]], text[[0, 2]], torch.tensor([0, 2]), SCALE)
    torch.testing.assert_close(some, only)
    assert text_alignment_loss(video, text, torch.full((4,), -1), SCALE) == 0


def test_perfect_and_collapsed() -> None:
    eye = torch.eye(6)
    group = torch.arange(6)
    assert text_alignment_loss(eye, eye, group, torch.tensor(100.0)) < 1e-6
    same = torch.ones(6, 6) / math.sqrt(6)
    torch.testing.assert_close(text_alignment_loss(same, same, group, SCALE), torch.tensor(math.log(6)))


def test_scale_and_both_sides_get_gradients() -> None:
    video, text = (x.requires_grad_() for x in embeddings(4))
    scale = SCALE.clone().requires_grad_()
    gradients = torch.autograd.grad(text_alignment_loss(video, text, torch.arange(4), scale), [video, text, scale])
    assert all(g.abs().sum() > 0 for g in gradients)
