from pathlib import Path
from typing import Literal

import pytest

from jobs.quarantine import QuarantineConfig, job
from pipelines.store.quarantine import QuarantineFilter
from tests.pipelines.store.test_quarantine import fail
from tests.pipelines.store.world import World, ids

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
