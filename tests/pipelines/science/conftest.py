from pathlib import Path

import pytest

from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig
from infra.tracking import TrackingConfig
from pipelines.science.worlds import make_world

SMALL = PlantedHierarchyConfig(num_train=1500, num_dev=20, num_test_seen=200, num_test_held_out=60)


@pytest.fixture(scope="session")
def small_world() -> PlantedHierarchyConfig:
    """A world in which order can still be learned, in seconds."""
    return SMALL


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of its seed 0."""
    root: Path = tmp_path_factory.mktemp("science")
    return make_world(root, "planted", 0, SMALL)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    """One database: making it takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    return TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests", system_metrics_interval_s=0)
