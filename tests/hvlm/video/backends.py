"""The backends that a test runs on; an optional one that is not installed is skipped."""

import pytest

from hvlm.errors import UserError
from hvlm.video.decoding import get_backend
from tests.hvlm.video.numbered import RECIPES


def torchcodec_is_importable() -> bool:
    try:
        get_backend("torchcodec")
    except UserError:
        return False
    return True


needs_torchcodec = pytest.mark.skipif(not torchcodec_is_importable(), reason="torchcodec is optional: not importable")
BACKENDS = ("pyav", "decord", pytest.param("torchcodec", marks=needs_torchcodec))
# torchcodec refuses containers without pts; test_torchcodec_backend.py holds that.
PARITY = [
    *((backend, name) for backend in BACKENDS[:2] for name in RECIPES),
    *(pytest.param("torchcodec", n, marks=needs_torchcodec) for n, (suffix, _) in RECIPES.items() if suffix != "avi"),
]
