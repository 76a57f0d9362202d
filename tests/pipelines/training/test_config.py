from typing import Any

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.training.config import TrainConfig

BASE: dict[str, Any] = {"system": "any", "store_uri": "s", "output_uri": "o"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resources": {"num_workers": [4, 2]}}, r"resources\.num_workers"),
        ({"resources": {"num_workers": 0}}, r"resources\.num_workers"),
        ({"resources": {"threads_per_worker": 0}}, r"resources\.threads_per_worker: got 0"),
        ({"optimizer": {"lr": 1e-7}}, "0 < min_lr <= lr"),
        ({"optimizer": {"clip_norm": 0}}, r"optimizer\.clip_norm"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, r"optimizer\.betas"),
        ({"optimizer": {"accumulate_steps": 0}}, r"optimizer\.accumulate_steps: got 0"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"max_steps": 0}, "max_steps: got 0"),
        ({"stream": {"prefetch_batches": 0}}, r"stream\.prefetch_batches"),
        ({"checkpoint": {"keep_last": 0}}, r"checkpoint\.keep_last"),
        ({"no_such_key": 1}, "no_such_key is not a known key"),
        ({"epochs": "many"}, "epochs='many'"),
    ],
)
def test_what_is_out_of_range_is_refused_whatever_is_trained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(TrainConfig, BASE | change, origin="x.yaml")


def test_every_number_of_workers_must_divide_a_batch() -> None:
    config = build_config(TrainConfig, BASE | {"resources": {"num_workers": [2, 4]}}, origin="x.yaml")
    config.check_workers("batching.child", 12)
    with pytest.raises(UserError, match=r"batching\.child: got 8; expected a multiple of .* from 2 to 4"):
        config.check_workers("batching.child", 8)


def test_every_part_of_a_batch_has_equally_many_samples() -> None:
    values = {"resources": {"num_workers": [1, 2]}, "optimizer": {"accumulate_steps": 4}}
    config = build_config(TrainConfig, BASE | values, origin="x.yaml")
    config.check_workers("batching.child", 16)
    with pytest.raises(UserError, match=r"got 12; expected a multiple of .* from 1 to 2, times 4 parts of each"):
        config.check_workers("batching.child", 12)
    for size in (4, 6):
        with pytest.raises(UserError, match=rf"got {size} with optimizer\.accumulate_steps 4; .* at least 2 samples"):
            config.check_workers("batching.child", size)
