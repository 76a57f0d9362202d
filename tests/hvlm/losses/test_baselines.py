import math

import pytest
import torch
from torch.nn import functional

from hvlm.losses.baselines import label_hits, label_loss, queue_logits, queue_loss


def test_label_loss_and_hits_by_hand() -> None:
    """Rows: the label is certain; two labels share half of the mass each; no label."""
    logits = torch.tensor([[100.0, 0, 0], [0.0, 0, 0], [0.0, 50, 0]], requires_grad=True)
    labels = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]]).bool()
    loss = label_loss(logits, labels)
    assert float(loss) == pytest.approx((0 + math.log(3)) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[1], torch.tensor([1 / 3, -1 / 6, -1 / 6]) / 2)
    assert not logits.grad[2].any()
    assert float(label_hits(logits.detach(), labels)) == 0.5
    assert math.isnan(label_hits(logits.detach(), labels & False)) and float(label_loss(logits, labels & False)) == 0


def test_queue_loss_by_hand() -> None:
    """Own key at 60 degrees, one negative at 90, one at 180."""
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    key = torch.tensor([[0.5, math.sqrt(0.75)]], requires_grad=True)
    queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    logits = queue_logits(query, key, queue, 0.5)
    torch.testing.assert_close(logits, torch.tensor([[1.0, 0.0, -2.0]]))
    loss = queue_loss(logits)
    assert float(loss) == pytest.approx(-math.log(math.e / (math.e + 1 + math.exp(-2))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None and key.grad is None and queue.grad is None


def test_random_keys_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, queue = (
        functional.normalize(torch.randn(n, 64, generator=generator), dim=-1) for n in (4000, 4000, 19)
    )
    logits = queue_logits(query, key, queue, 0.2)
    assert (logits.argmax(1) == 0).float().mean() == pytest.approx(1 / 20, abs=0.015)
