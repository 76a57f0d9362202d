import torch

from pipelines.training.step import autocast, mix_seed


def test_seeds_differ_by_every_part_and_a_cpu_has_no_autocast() -> None:
    assert len({mix_seed(a, b) for a in range(20) for b in range(20)}) == 400
    assert mix_seed(1, 2) == mix_seed(1, 2)
    with autocast(torch.device("cpu"), "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
