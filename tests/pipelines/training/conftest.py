from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.tracking import TrackingConfig
from pipelines.training.config import TrainConfig
from pipelines.training.job import TrainJob
from pipelines.training.prepare import prepare
from tests.pipelines.training.world import encode_text, make_store, train_config


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
