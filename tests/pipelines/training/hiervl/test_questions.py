import numpy as np
import pytest
import torch

from hvlm.models.aggregator import AggregatorConfig
from hvlm.models.clip_encoder import ClipEncoderConfig
from hvlm.models.hiervl import HierVL, HierVLConfig, build_hiervl
from pipelines.training.hiervl.questions import _permutations, embed_segments, shuffle_scores, wrong_texts


@pytest.fixture(scope="module")
def model() -> HierVL:
    torch.manual_seed(0)
    aggregator = AggregatorConfig(num_clips=4, num_layers=1, num_heads=2)
    return build_hiervl(HierVLConfig(clip=ClipEncoderConfig(hidden=8), aggregator=aggregator, dim=8), 6, 5).eval()


def test_no_wrong_order_is_the_right_one() -> None:
    orders = np.stack([_permutations(f"video{number}", 3) for number in range(50)])  # by chance one in six would be
    assert orders.shape == (50, 20, 3) and not (orders == np.arange(3)).all(2).any()
    assert len(np.unique(orders.reshape(-1, 3), axis=0)) == 5
    assert _permutations("a", 1).tolist() == [[0]] * 20  # there is no other


@torch.no_grad()
def test_a_segment_has_the_same_vectors_in_any_batch(model: HierVL) -> None:
    frames, mask = torch.randn(3, 4, 2, 6), torch.ones(3, 4, 2, dtype=torch.bool)
    mask[2, 3] = False
    together = embed_segments(model, frames, mask, ["a", "b", "c"])
    alone = embed_segments(model, frames[2:], mask[2:], ["c"])
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[2:], part)
    torch.testing.assert_close(together.video_VE, model.embed_video(frames, mask, mask.any(2)))
    other = embed_segments(model, frames[2:], mask[2:], ["another name"])
    assert not torch.allclose(other.shuffled_VPE, alone.shuffled_VPE)
    assert together.shuffled_VPE.shape == (3, 20, 8)


def test_scores_put_the_right_option_first() -> None:
    text, video = np.eye(2), np.eye(2)
    shuffled = np.zeros((2, 20, 2))
    shuffled[0, 4] = [0.5, 0]  # the first wrong option of the second seed
    scores = shuffle_scores(text, video, shuffled)
    assert scores.shape == (5, 2, 5)
    assert scores[:, :, 0].tolist() == [[1, 1]] * 5
    assert scores[1, 0, 1] == 0.5
    assert scores.sum() == 10.5


def test_another_text_goes_round_and_may_not_be_there() -> None:
    assert wrong_texts(np.array([3, 3, 4])) == [2, 2, 0]
    assert wrong_texts(np.array([3, 3])) is None
