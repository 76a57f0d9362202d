"""Numbered videos, encoded once per session, and the real videos beside the checkout."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.hvlm.video.numbered import RECIPES, write_video

SHARED_VIDEOS = Path(__file__).parents[3].parent / "shared" / "videos"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`numbered_video(name)` is the path of the encoded recipe `name`."""
    folder = tmp_path_factory.mktemp("numbered")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            suffix, recipe = RECIPES[name]
            made[name] = write_video(folder / f"{name}.{suffix}", recipe)
        return made[name]

    return make


@pytest.fixture(scope="session")
def shared_video() -> Callable[[str], Path]:
    """`shared_video(name)` is the path of a real video; skips the test where the folder is absent."""

    def find(name: str) -> Path:
        path = SHARED_VIDEOS / name
        if not path.exists():
            pytest.skip(f"no {SHARED_VIDEOS}: real videos are not part of the repository")
        return path

    return find
