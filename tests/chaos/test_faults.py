"""Extraction over a storage that fails: the store becomes the one that a sound storage gives, or the job says why not.

Source and store lie on `tests.infra.faulty`, in the driver and in Ray's workers. Only the catalog's tables do not:
Delta Lake reaches them with an object store client of its own.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra import retries
from infra.config_io import build_config
from jobs import extract
from jobs.entry import guarded
from pipelines.chaos.run import describe
from pipelines.extraction import dataset as dataset_module
from pipelines.extraction import run as run_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import Stages, extraction_dataset
from pipelines.extraction.staging_stage import Stager
from pipelines.ray_tasks import run_tasks
from pipelines.store import lease
from pipelines.store.catalog import FeatureStore
from pipelines.store.staging import sweep_orphans
from tests.infra.faulty import ALWAYS, TRANSIENT, Fault, Importing, hits, plan, prepare_worker
from tests.pipelines.extraction.conftest import write_video
from tests.pipelines.store.world import World, ids, tree


class FaultyStager(Stager):
    """The stage as it is; a Ray actor that makes it imports this module and so the faulty file system."""

    def __call__(self, table: pa.Table) -> pa.Table:
        prepare_worker()
        return super().__call__(table)


def faulty_dataset(work: pa.Table, stages: Stages) -> Any:
    return extraction_dataset(work, replace(stages, decoder=Importing(stages.decoder)))  # type: ignore[arg-type]


def faulty_tasks(function: Callable[[Any], Any], inputs: Any) -> Iterator[Any]:
    return run_tasks(Importing(function), inputs)


@pytest.fixture(autouse=True)
def faulty_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    table_uri, open_table = FeatureStore.table_uri, lease._open_table
    monkeypatch.setattr(FeatureStore, "table_uri", lambda self, name: table_uri(self, name).removeprefix("faulty://"))
    monkeypatch.setattr(lease, "_open_table", lambda uri: open_table(uri.removeprefix("faulty://")))
    monkeypatch.setattr(run_module, "extraction_dataset", faulty_dataset)
    monkeypatch.setattr(run_module, "run_tasks", faulty_tasks)
    monkeypatch.setattr(dataset_module, "Stager", FaultyStager)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)


pytestmark = pytest.mark.slow


def config(source: Path | str, store: Path | str, **changes: Any) -> ExtractConfig:
    values = {
        "store_uri": str(store),
        "source": {"uri": str(source)},
        "encoders": {"c3d": {"kind": "c3d", "weights": "random", "fps": 10.0, "width": 0.0625, "fc_dim": 32}},
        "decode": {"segment_s": 2.0},
        # Batches of one: what else is in a batch changes the last bits of a feature.
        "resources": {"segments_per_batch": 1, "segments_per_tar": 2, "encoder_threads": 1},
    }
    return build_config(ExtractConfig, values | changes, origin="test")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"v{number}.mp4", seconds=2.0 + number, seed=number)
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def wanted(ray_cluster: None, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The store that a sound storage gives."""
    store = tmp_path_factory.mktemp("stores") / "undisturbed"
    assert extract.job(config(videos, store)) == 0
    description = describe(str(store))
    assert len(description["samples"]) == 4 and len(description["quarantine"]) == 1
    return description


def run(job: ExtractConfig) -> int:
    return guarded(lambda: extract.job(job))


def test_what_passes_leaves_no_trace_and_is_counted(
    videos: Path, wanted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = plan(
        videos,
        Fault(kind="throttled", call="ls", times=2),
        Fault(kind="timeout", call="info", after=3, times=2),
        Fault(kind="reset", call="cat_file", after=1, times=3, chance=0.7),
        Fault(kind="server", call="get_file", times=3),
        Fault(kind="short", call="get_file", after=5, times=2),
        seed=1,
    )
    store = plan(
        tmp_path / "store",
        Fault(kind="input/output", call="info", times=2),
        Fault(kind="torn", call="put_file", where="staging", times=2),
        Fault(kind="short", call="put_file", where="/train-", times=2),
        Fault(kind="throttled", call="put_file", where="encoder.json", times=4),
        Fault(kind="reset", call="cat_file", where="staging", after=1, times=3),
        Fault(kind="server", call="rm_file", times=2),
    )
    assert run(config(source, store)) == 0
    struck = hits(videos) + hits(tmp_path / "store")
    assert all(struck) and describe(str(tmp_path / "store")) == wanted
    printed = re.search(r"storage +(\d+) calls failed for the moment", capsys.readouterr().out)
    assert printed is not None and int(printed[1]) == sum(struck)


def test_a_source_that_refuses_costs_its_videos_alone_until_it_gives_them(
    videos: Path, wanted: dict[str, Any], tmp_path: Path
) -> None:
    source = plan(
        videos,
        Fault(kind="denied", call="get_file", where="v1", times=ALWAYS),
        Fault(kind="timeout", call="get_file", where="v2", times=ALWAYS),
        Fault(kind="no credentials", call="cat_file", where="v3", times=ALWAYS),
    )
    store = tmp_path / "store"
    assert run(config(source, store)) == 0
    reasons = dict(FeatureStore.open(str(store)).failures().select("video_id", "reason").iter_rows())
    assert reasons == {
        "empty": "unreadable",
        "v1": "storage_permanent",
        "v2": "storage_transient",
        "v3": "storage_transient",
    }
    assert [row[0] for row in describe(str(store))["samples"]] == ["v0"]
    plan(videos)
    assert run(config(source, store)) == 0
    assert sorted(row[0] for row in describe(str(store))["samples"]) == ["v0", "v2", "v3"]
    assert run(config(source, store, retry_failed=True)) == 0
    assert sorted(row[0] for row in describe(str(store))["samples"]) == sorted(row[0] for row in wanted["samples"])


def test_a_store_that_refuses_ends_the_job_and_the_next_one_goes_on(
    videos: Path, wanted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = plan(videos)
    refusals = [
        (Fault(kind="denied", call="put_file", where="staging", times=ALWAYS), "Access Denied"),
        (Fault(kind="full", call="put_file", where=".tar", after=1, times=ALWAYS), "no space left"),
        (Fault(kind="torn", call="put_file", where="encoder.json", times=ALWAYS), "Connection reset by peer"),
        (Fault(kind="short", call="put_file", where="features/", after=1, times=ALWAYS), "are there after the upload"),
    ]
    for fault, words in refusals:
        job = config(source, plan(tmp_path / "store", fault))
        assert run(job) == 2
        assert words in capsys.readouterr().err
        assert FeatureStore.open(job.store_uri).samples().is_empty()
    assert run(config(source, plan(tmp_path / "store"))) == 0
    assert describe(str(tmp_path / "store")) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_passing_faults_gives_the_same_store(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray and without videos: three generations, with faults on every fifth call of each kind."""
    # About half of the attempts to write fail: six in a row come by chance, and would be no passing fault.
    monkeypatch.setattr(retries, "ATTEMPTS", 20)
    monkeypatch.setattr(retries, "LONGEST_WAIT_S", 0.02)
    stores = [World(tmp_path / "undisturbed"), World(plan(tmp_path / "store"))]
    calls = ("info", "ls", "get_file", "put_file", "cat_file", "rm_file")
    faults = [Fault(kind=kind, call=call, times=ALWAYS, chance=0.04) for kind in TRANSIENT for call in calls]
    faults += [Fault(kind=kind, call="put_file", times=ALWAYS, chance=0.1) for kind in ("torn", "short")]
    faults += [Fault(kind="late", call="ls", times=ALWAYS, chance=0.2, where="staging/run/")]
    plan(tmp_path / "store", *faults, seed=seed)
    for generation in range(3):
        for world in stores:
            world.add(*ids(8)[: 3 + 2 * generation], content=f"v{generation // 2}")
            world.snapshot()
            world.stage(per_tar=7)
            sweep_orphans(world.store)
            world.publish()
    assert sum(hits(tmp_path / "store")) > 20
    for folder in ("features", "staging"):
        assert tree(tmp_path / "store", folder) == tree(tmp_path / "undisturbed", folder)
