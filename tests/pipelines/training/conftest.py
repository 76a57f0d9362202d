from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.tracking import TrackingConfig
from pipelines.store.manifest import open_manifest
from pipelines.training.config import TextConfig, TrainConfig
from pipelines.training.job import TrainJob
from pipelines.training.prepare import prepare
from pipelines.training.stream import SampleTable
from pipelines.training.text import TextTable, make_text_table, read_metas, read_text_table, texts_of_video
from tests.pipelines.training.world import CLIP, encode_text, make_store, train_config


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_store(tmp_path_factory.mktemp("training") / "store")


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    folder = tmp_path_factory.mktemp("mlflow")
    return TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests", system_metrics_interval_s=0)


@pytest.fixture
def make_config(store: str, tracking: TrackingConfig, tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(name: str = "out", **changes: Any) -> TrainConfig:
        return train_config(store, tmp_path / name, **({"tracking": tracking} | changes))

    return make


@pytest.fixture
def make_job(make_config: Callable[..., TrainConfig]) -> Callable[..., TrainJob]:
    def make(name: str = "out", **changes: Any) -> TrainJob:
        return prepare(make_config(name, **changes), encode_text)[0]

    return make


@pytest.fixture(scope="module")
def table(store: str) -> SampleTable:
    return SampleTable.of(open_manifest(store, ["clip", "c3d"]), "train")


@pytest.fixture(scope="module")
def texts(store: str) -> TextTable:
    manifest = open_manifest(store)
    config = TextConfig(encoder=CLIP)
    of_videos = {meta.key: texts_of_video(meta, config.templates) for meta in read_metas(manifest, ("train",))}
    return read_text_table(make_text_table(manifest, config, of_videos, encode_text))
