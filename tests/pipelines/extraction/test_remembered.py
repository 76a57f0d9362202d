"""The store gives back the configuration that it was extracted with, and is not written without a reason."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.frame_cache import FrameCacheConfig
from pipelines.extraction.remembered import remember_config, remembered_config
from pipelines.store.catalog import FeatureStore


def test_what_was_remembered_comes_back_and_is_written_once(config: Callable[..., ExtractConfig]) -> None:
    store = FeatureStore.open(config().store_uri, create=True)
    with pytest.raises(UserError, match=r"no such file.*set extract_config"):
        remembered_config(store)
    remember_config(store, config(max_failed_fraction=0.25))
    assert remembered_config(store).max_failed_fraction == 0.25
    assert without_model(remembered_config(store)) == without_model(config(max_failed_fraction=0.25))
    place = Path(config().store_uri) / "extract.json"
    before = place.stat().st_mtime_ns
    remember_config(store, config(max_failed_fraction=0.25))
    assert place.stat().st_mtime_ns == before
    remember_config(store, config())
    assert without_model(remembered_config(store)) == without_model(config())


def without_model(config: ExtractConfig) -> ExtractConfig:
    """The tests' own model is a relative path."""
    clip = replace(config.encoders["clip"], model="any")  # type: ignore[call-arg]
    return replace(config, encoders=config.encoders | {"clip": clip})


def test_it_means_the_same_in_another_folder_and_on_another_cluster(
    config: Callable[..., ExtractConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "models" / "tiny.json"
    model.parent.mkdir()
    model.write_bytes(Path("jobs/configs/models/tiny_clip.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    made = config(
        store_uri="store",
        source={"uri": "videos/*.mp4", "annotations_uri": "s3://bucket/annotations.json"},
        encoders={
            "clip": {"kind": "clip", "model": "models/tiny.json", "pretrained": "random"},
            "c3d": {"kind": "c3d", "weights": "random"},
        },
        cluster={"address": "head:6379", "num_cpus": 3},
        decode={"cache": {"uri": "copies"}},
    )
    store = FeatureStore.open("store", create=True)
    remember_config(store, made)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = remembered_config(store)
    assert (found.store_uri, found.source.uri) == (str(tmp_path / "store"), str(tmp_path / "videos" / "*.mp4"))
    assert found.source.annotations_uri == "s3://bucket/annotations.json"
    assert found.decode.cache == FrameCacheConfig(uri=str(tmp_path / "copies"))
    assert (found.cluster.address, found.cluster.num_cpus) == (None, 3)
    assert found.encoders["c3d"] == made.encoders["c3d"]
    assert found.encoders["clip"] == replace(made.encoders["clip"], model=str(model))  # type: ignore[call-arg]
    assert b"head:6379" not in (tmp_path / "store" / "extract.json").read_bytes()


@pytest.mark.parametrize("content", ["{", '{"store_uri": "x", "surprise": 1}'])
def test_a_damaged_one_is_named(config: Callable[..., ExtractConfig], content: str) -> None:
    store = FeatureStore.open(config().store_uri, create=True)
    (Path(config().store_uri) / "extract.json").write_text(content)
    with pytest.raises(UserError, match=r"extract\.json"):
        remembered_config(store)
