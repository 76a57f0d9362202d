"""The store gives back the configuration that it was extracted with, and is not written without a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.remembered import remember_config, remembered_config
from pipelines.store.catalog import FeatureStore


def test_what_was_remembered_comes_back_and_is_written_once(config: Callable[..., ExtractConfig]) -> None:
    store = FeatureStore.open(config().store_uri, create=True)
    with pytest.raises(UserError, match=r"no such file.*set extract_config"):
        remembered_config(store)
    remember_config(store, config(max_failed_fraction=0.25))
    assert remembered_config(store) == config(max_failed_fraction=0.25)
    place = Path(config().store_uri) / "extract.json"
    before = place.stat().st_mtime_ns
    remember_config(store, config(max_failed_fraction=0.25))
    assert place.stat().st_mtime_ns == before
    remember_config(store, config())
    assert remembered_config(store) == config()


@pytest.mark.parametrize("content", ["{", '{"store_uri": "x", "surprise": 1}'])
def test_a_damaged_one_is_named(config: Callable[..., ExtractConfig], content: str) -> None:
    store = FeatureStore.open(config().store_uri, create=True)
    (Path(config().store_uri) / "extract.json").write_text(content)
    with pytest.raises(UserError, match=r"extract\.json"):
        remembered_config(store)
