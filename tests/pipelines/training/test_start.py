"""The start from another training: which weights is written down once, and others are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvlm.errors import UserError
from pipelines.store.manifest import open_manifest
from pipelines.training.checkpoints import CheckpointInfo, read_info, weights_sha256
from pipelines.training.config import StreamConfig, TrainConfig
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.start import START_FILE, check_inputs, pin_start, pinned_start
from pipelines.training.system import RankContext
from tests.pipelines.training.test_loop import Recorder

MakeConfig = Callable[..., TrainConfig]


def _never(uri: str, info: CheckpointInfo) -> None:
    raise AssertionError("it was checked at the first start")


def test_the_first_start_decides(make_job: Callable[..., TrainJob], make_config: MakeConfig, tmp_path: Path) -> None:
    first = train(make_job("before", max_steps=1), RankContext(), Recorder())
    before, mine = str(tmp_path / "before"), str(tmp_path / "mine")
    seen: list[tuple[str, int]] = []
    tags = pin_start(before, mine, lambda uri, info: seen.append((uri, info.step)))
    assert seen == [(first.checkpoint_uri, 1)]
    assert tags == {
        "start.checkpoint": first.checkpoint_uri,
        "start.step": 1,
        "start.run_id": read_info(str(first.checkpoint_uri)).run_id,
        "start.weights_sha256": weights_sha256(str(first.checkpoint_uri)),
    }
    later = train(make_job("other", max_steps=2), RankContext(), Recorder())
    assert pin_start(before, mine, _never) == tags
    assert pinned_start(mine) == first.checkpoint_uri
    with pytest.raises(AssertionError, match="first start"):
        pin_start(str(later.checkpoint_uri), mine, _never)  # another one is a new start
    file = Path(mine, START_FILE)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights_sha256": "0" * 64}))
    with pytest.raises(UserError, match="weights 000000000000, as at the first start"):
        pinned_start(mine)
    _check_inputs(str(first.checkpoint_uri), make_config)


def _check_inputs(uri: str, make_config: MakeConfig) -> None:
    info, config = read_info(uri), make_config("joined")
    check_inputs(uri, info, config, open_manifest(config.store_uri))
    with pytest.raises(UserError, match="features of other encoders"):
        check_inputs(uri, info, config, open_manifest(config.store_uri, ["clip"]))
    raw = make_config("joined", stream=StreamConfig(l2_normalise=True))
    with pytest.raises(UserError, match=r"got stream\.l2_normalise False; expected True, as here"):
        check_inputs(uri, info, raw, open_manifest(config.store_uri))


def test_without_a_start_nothing_is_written(tmp_path: Path) -> None:
    checks: Any = _never
    assert pin_start(None, str(tmp_path), checks) == {}
    assert pinned_start(str(tmp_path)) is None
    with pytest.raises(UserError, match="a complete checkpoint"):
        pin_start("/nowhere", str(tmp_path), checks)
    assert not list(tmp_path.iterdir())
