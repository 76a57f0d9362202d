import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from hvlm.errors import UserError
from jobs.quarantine import QuarantineConfig, job
from pipelines.store.odd_rows import OddRowsError
from pipelines.store.publish import PublishConfig
from pipelines.store.quarantine import QuarantineFilter
from tests.pipelines.store import world as world_module
from tests.pipelines.store.test_quarantine import fail
from tests.pipelines.store.world import BOTH, CLIP, World, ids, tree

Action = Literal["list", "show", "retry", "release"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "store")
    world.add(*ids(3))
    world.snapshot()
    fail(world, "video000", message="12 frames are missing", decoder="pyav 18.1.0 (FFmpeg 8.1.2)")
    fail(world, "video001", reason="unreadable", permanent=False)
    return world


def run(world: World, capsys: pytest.CaptureFixture[str], action: Action, **wanted: str) -> str:
    assert job(QuarantineConfig(store_uri=str(world.root), action=action, filter=QuarantineFilter(**wanted))) == 0
    return capsys.readouterr().out


def test_list_and_show(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    listed = run(world, capsys, "list")
    assert "2 failures of 2 videos" in listed and "1 × truncated" in listed
    assert "video000  truncated (permanent, 1×, 20" in listed and "12 frames are missing" in listed
    assert "is tried again" in listed
    shown = run(world, capsys, "show", reason="truncated")
    assert "decoder     pyav 18.1.0 (FFmpeg 8.1.2)" in shown
    assert "/v/video000.mp4" in shown and "first seen" in shown and "video001" not in shown


def test_retry_then_release(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 of 2 failures: the next extraction" in run(world, capsys, "retry")
    assert "2 of 2 failures: they are forgotten" in run(world, capsys, "release")
    assert "0 failures of 0 videos" in run(world, capsys, "list")


def test_what_a_publish_refused_is_discarded_and_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "store")
    world.add(*ids(20))
    world.snapshot()
    config = PublishConfig(splits=world_module.CONFIG.splits)
    planted = world_module.planted_features
    with monkeypatch.context() as dead:
        dead.setattr(world_module, "planted_features", lambda *which: np.ones_like(planted(*which)))
        world.stage({"clip": CLIP})
    world.stage({"c3d": BOTH["c3d"]})
    for _ in range(2):  # whoever only runs it again gets nowhere
        with pytest.raises(OddRowsError, match=r"action=discard encoder=(\S+)`") as caught:
            world.publish(config=config)
        assert world.stage() == 0
    named = re.search(r"encoder=([\w-]+)", str(caught.value))
    assert named is not None
    assert job(QuarantineConfig(store_uri=str(world.root), action="discard", encoder=named[1])) == 0
    assert "60 staged segments of 20 videos discarded" in capsys.readouterr().out
    assert set(world.store.staged()["encoder"]) == {"c3d"}
    assert set(tree(tmp_path / "store", "staging")) == set(world.store.staged()["tar"])
    assert world.stage() == 60
    assert world.publish(config=config).published == 20
    with pytest.raises(UserError, match="there is none"):
        job(QuarantineConfig(store_uri=str(world.root), action="discard", encoder="clip"))


@pytest.mark.parametrize("values", [{"action": "discard"}, {"action": "list", "encoder": "clip"}])
def test_an_encoder_goes_with_discard_alone(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="encoder"):
        QuarantineConfig(store_uri="x", **values)
