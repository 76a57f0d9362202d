"""The parts of the chaos harness; `tests/chaos` runs it on a real extraction."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipelines.chaos import run as run_module
from pipelines.chaos.round import ChaosError
from pipelines.chaos.run import KillPlan, compare, describe, describe_content, run_chaos
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "store")
    world.add(*ids(4))
    world.run()
    return world


def test_equal_stores_have_equal_descriptions(world: World, tmp_path: Path) -> None:
    again = World(tmp_path / "again")
    again.add(*ids(4))
    again.run(order=-1)
    assert compare(describe(str(world.root)), describe(str(again.root))) == []


def test_each_difference_is_seen(world: World) -> None:
    wanted = describe(str(world.root))
    shard = sorted(Path(world.root, "features").rglob("*.tar"))[0]
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    (Path(world.root) / "staging").mkdir(exist_ok=True)
    (Path(world.root) / "staging" / "orphan.tar").write_bytes(b"")
    world.store.commit_failures([{"video_id": "x", "stage": "decode", "reason": "truncated"} | TEXT])
    lines = compare(wanted, describe(str(world.root)))
    assert parts(lines) == ["files", "quarantine", "left in staging", "found by verify"]


def test_a_change_of_the_source_leaves_the_content_the_same_and_not_the_packing(world: World, tmp_path: Path) -> None:
    world.add(*ids(6)[4:])
    world.add(ids(4)[0], content="v2")
    world.run()
    undisturbed = World(tmp_path / "again")
    undisturbed.videos = world.videos
    undisturbed.run()
    uris = str(undisturbed.root), str(world.root)
    assert parts(compare(*map(describe, uris))) == ["samples", "files"]
    assert compare(*map(describe_content, uris)) == []
    world.store.commit_failures([{"video_id": "gone", "content_hash": "x", "stage": "decode", "reason": "r"} | TEXT])
    assert compare(*map(describe_content, uris)) == []
    world.add(ids(4)[1], content="v3")
    world.run()
    assert parts(compare(*map(describe_content, uris))) == ["samples"]


def parts(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


TEXT = {"message": "m", "permanent": True}


class FakeRound:
    """Kills all but, in the first two rounds, the raylet, which does not come up."""

    started: ClassVar[list["FakeRound"]] = []

    def __init__(self, *, command: list[str], store: Path, rng: random.Random, **options: Any) -> None:
        self.command, self.store, self.rng, self.options = command, store, rng, options
        self.kills, self.num_changes, self.survived, self.hung = Counter[str](), 0, 1, 0
        self.started.append(self)

    def kill(self, names: Sequence[str]) -> list[str]:
        missed = [name for name in names if name == "raylet" and len(self.started) <= 3]
        self.names = list(names)
        self.kills.update(name for name in names if name not in missed)
        self.num_changes = len(names) if self.options["source"] else 0
        return missed

    def finish(self) -> dict[str, int]:
        return {"staging/*/*.tar": 2}


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[FakeRound]:
    """The rounds that are started, without jobs; every second store differs from the undisturbed one."""
    monkeypatch.setattr(FakeRound, "started", [])
    monkeypatch.setattr(run_module, "Round", FakeRound)
    monkeypatch.setattr(run_module, "describe", lambda uri: {"samples": [uri[-1] in "3"]})
    monkeypatch.setattr(run_module, "describe_content", lambda uri: {"content": [Path(uri).name]})
    return FakeRound.started


def command(store_uri: str, source_uri: str) -> list[str]:
    return [store_uri, source_uri]


def test_each_target_has_its_turn_and_one_that_was_missed_the_next(rounds: list[FakeRound], tmp_path: Path) -> None:
    report = run_chaos(command, "/videos", tmp_path / "new", KillPlan(num_kills=24, per_round=8))
    assert report.kills.total() == 24 and set(report.kills) == set(run_module.TARGETS)
    assert set(report.kills.values()) == {2, 3}
    assert report.rounds == report.survived == len(rounds) - 1 and report.hung == report.changes == 0
    missed = [number for number, played in enumerate(rounds[1:]) if "raylet" in played.names and number < 2]
    assert missed and "raylet" in rounds[missed[-1] + 2].names and rounds[1].options["num_files"]
    assert report.differences == ["round-003: samples: 1 entries, 1 in the undisturbed run, or others"]


def test_in_every_second_round_a_copy_of_the_source_changes(rounds: list[FakeRound], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    plan = KillPlan(num_kills=12, per_round=4, change_source=True)
    report = run_chaos(command, str(tmp_path / "videos"), tmp_path / "new", plan)
    used = [(Path(played.command[0]).name, Path(played.command[1]).name) for played in rounds]
    plain = [("undisturbed", "videos"), ("round-001", "videos")]
    changed = [(name, "round-002-source") for name in ("round-002", "round-002-undisturbed")]
    assert used[:4] == plain + changed and report.changes >= 4
    assert "round-002: content: 1 entries, 1 in the undisturbed run, or others" in report.differences


def test_targets_that_never_come_up_end_it(
    rounds: list[FakeRound], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "TARGETS", {"raylet": run_module.TARGETS["raylet"]})
    monkeypatch.setattr(FakeRound, "kill", lambda played, names: list(names))
    with pytest.raises(ChaosError, match=r"3 jobs came to their end, and none of these .*raylet"):
        run_chaos(command, "/videos", tmp_path / "new", KillPlan(num_kills=1))
