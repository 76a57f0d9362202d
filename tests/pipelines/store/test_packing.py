"""The size at which shards are cut stays with the store."""

from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.store.catalog import FeatureStore
from pipelines.store.packing import remember_packing, remembered_packing


def test_it_comes_back_and_is_written_once(tmp_path: Path) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    assert remembered_packing(store) is None
    remember_packing(store, 5000)
    before = (tmp_path / "packing.json").stat().st_mtime_ns
    remember_packing(store, 5000)
    assert remembered_packing(store) == 5000 and (tmp_path / "packing.json").stat().st_mtime_ns == before
    remember_packing(store, 6000)
    assert remembered_packing(store) == 6000


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    store = FeatureStore.open(str(tmp_path), create=True)
    (tmp_path / "packing.json").write_text(content)
    with pytest.raises(UserError, match=r"packing\.json.*delete the file"):
        remembered_packing(store)
