"""Of two writers one wins; a dead one's lease is taken over; a lost lease ends the commits of its holder."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from pipelines.store import lease as lease_module
from pipelines.store.catalog import FeatureStore
from pipelines.store.lease import Lease, LeaseLost, StoreIsHeld
from pipelines.store.schema import SAMPLES

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return FeatureStore.open(str(tmp_path / "store"), create=True).uri


def row(uri: str) -> dict[str, Any]:
    return pl.scan_delta(f"{uri}/catalog/lease").collect().to_dicts()[0]


def hold_until(uri: str, held: Event, done: Event) -> None:
    with Lease(uri, "jobs.extract"):
        held.set()
        done.wait()


def race(uri: str, barrier: Barrier, results: Any) -> None:
    barrier.wait()
    try:
        with Lease(uri, "jobs.extract"):
            results.put("held")
            time.sleep(5)
    except StoreIsHeld:
        results.put("refused")


@pytest.fixture
def other_process(uri: str) -> Any:
    """A process that holds the lease, and the event that makes it give it back."""
    held, done = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold_until, args=(uri, held, done))
    process.start()
    assert held.wait(60)
    yield process, done
    process.kill()
    process.join()


def test_a_held_store_names_its_holder_and_is_free_afterwards(uri: str, other_process: Any) -> None:
    process, done = other_process
    with pytest.raises(StoreIsHeld, match=rf"written by jobs\.extract on .* \(pid {process.pid}\)"), Lease(uri, "b"):
        pass
    done.set()
    process.join(30)
    with Lease(uri, "b") as lease:
        lease.check()
        assert row(uri)["job"] == "b"
    assert row(uri)["token"] == ""


def test_a_killed_holder_is_replaced_at_once(uri: str, other_process: Any) -> None:
    process, _ = other_process
    process.kill()
    process.join()
    with Lease(uri, "b") as lease:
        lease.check()
        assert row(uri)["pid"] == os.getpid()


def test_a_holder_of_another_machine_is_replaced_when_its_lease_is_over(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "GRACE_S", 0.0)
    old = Lease(uri, "a", lease_s=1.0)
    monkeypatch.setattr(lease_module, "_machine", lambda: "elsewhere")
    old.__enter__()
    old._stop.set()  # it hangs: no renewal any more
    monkeypatch.setattr(lease_module, "_machine", lambda: "here")
    with pytest.raises(StoreIsHeld, match="this works"), Lease(uri, "b"):
        pass
    time.sleep(1.1)
    with Lease(uri, "b") as new:
        with pytest.raises(LeaseLost, match="run the same command again"):
            old.check()
        old.__exit__(None, None, None)
        new.check()
        assert row(uri)["job"] == "b"  # giving back a lost lease takes nothing from the new holder


def test_a_renewed_lease_outlives_its_time(uri: str) -> None:
    with Lease(uri, "a", lease_s=1.0) as lease:
        first = row(uri)["expires_s"]
        time.sleep(2.0)
        lease.check()
        assert row(uri)["expires_s"] > first + 1.0


def test_a_lease_that_was_taken_over_ends_its_holders_commits(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)
    store = FeatureStore.open(uri)
    failure = {"video_id": "v", "stage": "decode", "reason": "timeout", "message": "m", "permanent": False}
    with store.writing("a"):
        store.commit_failures([failure])
        thief = Lease(uri, "b")
        thief._table = DeltaTable(f"{uri}/catalog/lease")
        assert thief._write(lease_module._with(store._lease._holder, token="thief", job="b"))  # type: ignore[union-attr, arg-type]
        time.sleep(1.0)
        with pytest.raises(LeaseLost, match="taken it over"):
            store.commit_failures([failure | {"video_id": "w"}])
        with pytest.raises(LeaseLost, match="taken it over"):
            store.commit_samples(pl.DataFrame([dict.fromkeys(SAMPLES)], schema=SAMPLES), store.samples_version())
        with pytest.raises(LeaseLost, match="taken it over"):
            store.replace_staged(store.staged())
    assert store.failures()["video_id"].to_list() == ["v"]


def test_of_many_takers_one_wins(uri: str) -> None:
    barrier, results = SPAWN.Barrier(4), SPAWN.Queue()
    processes = [SPAWN.Process(target=race, args=(uri, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=120) for _ in processes) == ["held", "refused", "refused", "refused"]
    for process in processes:
        process.join()


def test_a_storage_that_fails_for_a_while_costs_nothing(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: Callable[..., None] = lease_module.write_deltalake
    fails = iter([True, True])

    def flaky(*args: Any, **options: Any) -> None:
        if next(fails, False):
            raise OSError("503 slow down")
        written(*args, **options)

    with Lease(uri, "a", lease_s=2.0) as lease:
        monkeypatch.setattr(lease_module, "write_deltalake", flaky)
        time.sleep(3.0)
        lease.check()


def create(uri: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        store = FeatureStore.open(uri, create=True)
        with store.writing("race"):
            results.put("held")
            time.sleep(3.0)
    except StoreIsHeld:
        results.put("refused")
    except BaseException as error:
        results.put(repr(error))
        raise


def test_of_many_that_create_the_same_store_one_wins(tmp_path: Path) -> None:
    barrier, results = SPAWN.Barrier(4), SPAWN.Queue()
    arguments = (str(tmp_path / "new"), barrier, results)
    processes = [SPAWN.Process(target=create, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=120) for _ in processes) == ["held", "refused", "refused", "refused"]
    for process in processes:
        process.join()
    assert FeatureStore.open(arguments[0]).frames().videos.is_empty()
