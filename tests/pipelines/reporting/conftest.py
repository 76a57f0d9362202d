"""One MLflow database for all tests of this folder: making its tables takes seconds."""

import itertools

import pytest
from mlflow.tracking import MlflowClient

from infra.tracking import TrackingConfig
from pipelines.reporting.config import ReportConfig


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(database)


_numbers = itertools.count()


@pytest.fixture
def experiment(client, database):
    """(name, id) of an empty experiment."""
    name = f"experiment-{next(_numbers)}"
    place = database.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    return name, client.create_experiment(name, artifact_location=f"file://{place}/artifacts")


@pytest.fixture
def config(client, database, experiment, tmp_path):
    """A report over the experiment."""
    tracking = TrackingConfig(uri=database, experiment="reports", system_metrics_interval_s=0)
    return ReportConfig(output_uri=str(tmp_path / "report"), experiment=experiment[0], tracking=tracking)
