"""One checkpoint of a HierVL on the planted store for all tests of this folder."""

from pathlib import Path

import pytest

from tests.pipelines.evaluation.hiervl.planted_hiervl import make_checkpoint


@pytest.fixture(scope="session")
def trained(planted: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(store URI, training output URI); tests only read them."""
    root: Path = tmp_path_factory.mktemp("hiervl") / "training"
    root.mkdir()
    make_checkpoint(planted[0], root)
    return planted[0], str(root)
