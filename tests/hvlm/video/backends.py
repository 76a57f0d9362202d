"""The backends that a test runs on; an optional one that is not installed is skipped."""

from collections.abc import Iterator

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.video.decoding import get_backend
from hvlm.video.packets import BackendName, FrameRequest, backend_for
from tests.hvlm.video.numbered import RECIPES


def torchcodec_is_importable() -> bool:
    try:
        get_backend("torchcodec")
    except UserError:
        return False
    return True


needs_torchcodec = pytest.mark.skipif(not torchcodec_is_importable(), reason="torchcodec is optional: not importable")
BACKENDS = ("pyav", "decord", pytest.param("torchcodec", marks=needs_torchcodec))
WITH_PTS = [name for name, (suffix, _) in RECIPES.items() if suffix != "avi"]
PARITY = [
    *((backend, name) for backend in BACKENDS[:2] for name in RECIPES),
    *(pytest.param("torchcodec", name, marks=needs_torchcodec) for name in RECIPES),
]


def decode(backend: BackendName, request: FrameRequest) -> Iterator[np.ndarray]:
    """The frames, decoded as `decode_views` does."""
    return get_backend(backend_for(backend, request.counted)).decode(request)
