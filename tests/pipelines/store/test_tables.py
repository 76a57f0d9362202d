"""Where tables may lie, and what else is true of each of them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError

from hvlm.errors import UserError
from infra import storage
from pipelines.store import tables
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.schema import SAMPLES
from pipelines.store.upkeep.maintenance import tidy_tables
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.store.world import World


@pytest.mark.parametrize("name", ["my videos", "Ünïcode 日本", "50% off", "#1?", "a'b&c=d", "{x}*"])
def test_a_store_lives_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    world = World(tmp_path / name)
    world.add("a", "b")
    with world.store.writing("jobs.extract"):
        world.run()
        tidy_tables(world.store)
    assert world.run().published == 0
    manifest = open_manifest(str(tmp_path / name))
    rows = manifest.frame.to_dicts()
    assert {row["video_id"] for row in rows} == {"a", "b"} and read_sample(manifest.store_uri, rows[0], "clip")
    assert not verify_store(manifest.store_uri).problems and [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["[2024]", "a^b", "a|b", "a\\b", "a%20b"])
def test_a_folder_that_delta_lake_cannot_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"store_uri: got .*, which Delta Lake cannot take; rename the folder"):
        FeatureStore.open(str(tmp_path / name), create=True)
    assert not list(tmp_path.iterdir())


def test_a_table_that_another_job_creates_at_this_moment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise CommitFailedError("Protocol changed since last commit")

    store = FeatureStore.open(str(tmp_path / "store"), create=True)
    monkeypatch.setattr(tables.DeltaTable, "create", lost)
    schema = pl.DataFrame(schema=SAMPLES).to_arrow().schema
    tables.create_table(storage.join(store.uri, "catalog", "samples"), schema, {})
    with pytest.raises(CommitFailedError):
        tables.create_table(str(tmp_path / "nowhere"), schema, {})
