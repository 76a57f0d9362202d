"""One planted store and one checkpoint for all tests of this folder."""

from pathlib import Path

import pytest
import torch

from tests.pipelines.evaluation.planted_store import make_checkpoint, make_store

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(store URI, training output URI); tests only read them."""
    root: Path = tmp_path_factory.mktemp("planted")
    store = make_store(root / "store")
    make_checkpoint(store, root / "training")
    return store, str(root / "training")
