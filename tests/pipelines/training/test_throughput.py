import time

import pytest
import torch

from pipelines.training.throughput import Throughput


def test_figures_by_hand() -> None:
    throughput = Throughput()
    throughput.add([torch.tensor([[True, True], [True, False]])], 1)
    throughput.add([torch.tensor([[True, True, True, False]])], 0)
    with throughput.waiting():
        time.sleep(0.05)
    with throughput.paused():
        time.sleep(0.3)
    figures = throughput.take()
    assert figures["frames_per_s"] == pytest.approx(2 * figures["samples_per_s"])
    assert figures["padding_share"] == pytest.approx(2 / 8)
    assert figures["bad_rows"] == 1
    assert figures["data_wait_share"] > 0.5  # the pause does not count
    assert throughput.take()["samples_per_s"] == 0
