import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hvlm.errors import UserError
from hvlm.losses.contrastive import InfoNCEConfig, temporal_infonce


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(z: torch.Tensor, lengths: list[int], config: InfoNCEConfig, seed: int) -> float:
    """The same loss with loops, replaying the draws: shares of anchors, distances, sides, shares of candidates."""
    g = generator(seed)
    count = len(lengths)
    anchors = torch.rand(count, config.anchors_per_video, generator=g, dtype=torch.float64)
    distances = torch.randint(1, config.window + 1, anchors.shape, generator=g)
    sides = 2 * torch.randint(0, 2, anchors.shape, generator=g) - 1
    candidates = torch.rand(count, config.candidates_per_video, generator=g, dtype=torch.float64)
    unit = torch.nn.functional.normalize(z, dim=-1)
    losses = []
    for video, length in enumerate(lengths):
        for k in range(config.anchors_per_video):
            t = int(anchors[video, k] * length)
            step = int(sides[video, k]) * min(int(distances[video, k]), max(1, length - 1))
            positive = t + step if 0 <= t + step < length else t - step
            if not 0 <= positive < length:
                continue
            logits = [float(unit[video, t] @ unit[video, positive])]
            for other, other_length in enumerate(lengths):
                for share in candidates[other]:
                    j = int(share * other_length)
                    if other != video or abs(j - t) >= config.gap:
                        logits.append(float(unit[video, t] @ unit[other, j]))
            scaled = [value / config.temperature for value in logits]
            losses.append(math.log(sum(math.exp(value) for value in scaled)) - scaled[0])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("window", [1, 3])
def test_equals_the_loop(window: int) -> None:
    lengths = [20, 12, 3, 2, 1]
    z = torch.randn(5, 20, 6, generator=generator(7))
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    config = InfoNCEConfig(window=window, gap=5, anchors_per_video=4, candidates_per_video=6, temperature=0.5)
    got = temporal_infonce(z, mask, config, generator(3))
    assert float(got) == pytest.approx(reference(z, lengths, config, 3), rel=1e-5)


def test_padding_does_not_matter() -> None:
    z = torch.randn(3, 12, 6, generator=generator(1))
    mask = torch.arange(12) < torch.tensor([12, 6, 2])[:, None]
    expected = temporal_infonce(z, mask, InfoNCEConfig(), generator())
    longer = torch.cat([z, torch.zeros(3, 9, 6)], dim=1)
    long_mask = torch.cat([mask, torch.zeros(3, 9, dtype=torch.bool)], dim=1)
    longer[~long_mask] = float("nan")
    torch.testing.assert_close(temporal_infonce(longer, long_mask, InfoNCEConfig(), generator()), expected)


def test_near_rows_of_the_same_video_are_no_negatives() -> None:
    # One video of 8 rows and a gap of 8: nothing is a negative, so the loss is 0.
    z = torch.randn(1, 8, 4)
    assert float(temporal_infonce(z, torch.ones(1, 8, dtype=torch.bool), InfoNCEConfig(), generator())) < 1e-6
    far = temporal_infonce(torch.randn(1, 40, 4), torch.ones(1, 40, dtype=torch.bool), InfoNCEConfig(), generator())
    assert far > 0.5


def test_videos_of_one_row_have_no_anchor() -> None:
    assert temporal_infonce(torch.randn(4, 1, 4), torch.ones(4, 1, dtype=torch.bool), InfoNCEConfig(), generator()) == 0


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("num_videos", [8, 200])
def test_similarity_matrix_is_bounded(num_videos: int) -> None:
    config = InfoNCEConfig(max_anchors=64, max_candidates=64)
    z = torch.randn(num_videos, 4, 2)
    with LargestTensor() as seen:
        loss = temporal_infonce(z, torch.ones(num_videos, 4, dtype=torch.bool), config, generator())
    assert seen.largest <= max(64 * 65, 2 * z.numel())
    assert torch.isfinite(loss)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="below gap=8"):
        InfoNCEConfig(window=8)
    with pytest.raises(UserError, match="temperature"):
        InfoNCEConfig(temperature=0.0)
