"""Maintenance, counted in files and commits: what reading and committing cost does not grow with the table's age."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from pipelines.store import lease
from pipelines.store.catalog import FeatureStore
from pipelines.store.lease import LeaseLost
from pipelines.store.manifest import open_manifest
from pipelines.store.schema import FAILURES
from pipelines.store.upkeep import maintenance
from pipelines.store.upkeep.maintenance import MAX_FILES, tidy_tables
from tests.pipelines.store.world import World, ids

FAILURE: dict[str, Any] = {name: "" if kind == pl.String() else 0 for name, kind in FAILURES.items()}


def table(store: FeatureStore, name: str) -> DeltaTable:
    return DeltaTable(f"{store.uri}/catalog/{name}")


def test_many_commits_leave_few_files_to_read_and_the_same_rows(tmp_path: Path) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    for number in range(MAX_FILES + 1):
        row = FAILURE | {"video_id": f"v{number:04d}", "permanent": True, "at_s": float(number)}
        store.append_failures([row])
    rows = store._scan("failures").collect()
    assert len(table(store, "failures").file_uris()) == MAX_FILES + 1
    tidy_tables(store)
    assert len(table(store, "failures").file_uris()) == 1
    assert store._scan("failures").collect().equals(rows)
    version = table(store, "failures").version()
    tidy_tables(store)
    assert table(store, "failures").version() == version  # nothing to do, no commit
    log = list((tmp_path / "catalog" / "failures" / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(log) == 1  # a reader of the next version reads it and the few entries after it


def test_a_pinned_version_of_samples_survives_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MAX_FILES", 3)
    world = World(tmp_path)
    for video_id in ids(4):
        world.add(video_id)
        world.run()
    pinned = open_manifest(str(tmp_path), version=2)
    before = open_manifest(str(tmp_path))
    tidy_tables(world.store)
    assert len(table(world.store, "samples").file_uris()) == 1
    assert open_manifest(str(tmp_path)).manifest_hash == before.manifest_hash
    assert open_manifest(str(tmp_path), version=2).manifest_hash == pinned.manifest_hash
    world.add("late")
    assert world.run().published == 1


def test_old_files_of_staged_go_and_those_of_the_last_day_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    for video_id in ids(2):
        world.add(video_id)
        world.run()  # each publish rewrites `staged`
    world.add("late")
    world.snapshot()
    world.stage()
    rows = world.store.staged()
    folder = tmp_path / "catalog" / "staged"
    before = len(list(folder.glob("*.parquet")))
    tidy_tables(world.store)
    assert len(list(folder.glob("*.parquet"))) == before
    monkeypatch.setattr(maintenance, "_KEEP_HOURS", 0)
    tidy_tables(world.store)
    assert len(list(folder.glob("*.parquet"))) == len(table(world.store, "staged").file_uris()) < before
    assert world.store.staged().equals(rows)


def test_the_lease_forgets_its_old_rows_and_their_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    folder = tmp_path / "catalog" / "lease"
    for number in range(55):  # two commits each, and two of the deletion
        monkeypatch.setattr(lease, "_KEEP_HOURS", 24 if number < 3 else 0)
        with store.writing("test"):
            store.check_lease()
            for path in (folder / "_delta_log").iterdir():
                os.utime(path, (1e9, 1e9))  # of 2001
        if number == 2:
            assert len(list(folder.glob("*.parquet"))) == 6
    assert len(list(folder.glob("*.parquet"))) <= 3
    log = list((folder / "_delta_log").glob("*.json"))
    assert table(store, "lease").version() > 150 and len(log) <= 100  # a checkpoint takes the older entries with it


def test_who_lost_the_lease_merges_nothing(tmp_path: Path) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    with store.writing("test"):
        store._lease._lost = "it was taken"  # type: ignore[union-attr]
        with pytest.raises(LeaseLost):
            tidy_tables(store)


def test_who_lost_the_lease_while_it_merged_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    checks, deleted = list[int](), list[int]()

    def check() -> None:
        checks.append(1)
        if len(checks) == 3:  # of `videos`, of `staged`, and before what `staged` no longer needs is deleted
            raise LeaseLost("taken over")

    monkeypatch.setattr(store, "check_lease", check)
    monkeypatch.setattr(DeltaTable, "vacuum", lambda *_, **__: deleted.append(1))
    with pytest.raises(LeaseLost):
        tidy_tables(store)
    assert deleted == []
