"""What all tests share: one small Ray, one thread per process, and skipping of GPU tests where there is none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# One thread per process, set before numpy and torch load: with two cores, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU on a machine without one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray with 2 CPUs for the whole session; starting one takes seconds, so tests share it."""
    from infra.cluster import ClusterConfig, connect

    with connect(ClusterConfig(address="local", num_cpus=2, num_gpus=0, object_store_memory_bytes=200_000_000)):
        yield
