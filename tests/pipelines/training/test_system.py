import torch

from pipelines.training.system import Prepared, RankContext


def test_without_ray_there_is_one_rank_on_the_cpu() -> None:
    assert RankContext() == RankContext(0, 1, torch.device("cpu"))


def test_a_system_without_text_prepares_none() -> None:
    prepared = Prepared(steps_per_epoch=3)
    assert (prepared.d_text, prepared.text_uri, prepared.tags) == (None, None, {})
