"""What the child answers; `test_sandbox.py` runs it as a process."""

import pytest

from hvlm.errors import Reason, VideoError
from pipelines.extraction import sandbox_child


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("x"), Reason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (OSError("gone"), Reason.STORAGE_TRANSIENT),
        (ValueError("odd"), Reason.UNREADABLE),
        (VideoError(Reason.TRUNCATED, "cut"), Reason.TRUNCATED),
    ],
)
def test_every_error_has_a_reason(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason) -> None:
    def fails(path: str) -> None:
        raise error

    monkeypatch.setattr(sandbox_child, "scan_video", fails)
    answer = sandbox_child._answer(("scan", "/v.mp4"), None)
    assert isinstance(answer, VideoError) and answer.reason is reason


def test_private_memory_is_what_the_system_says() -> None:
    before = sandbox_child._private_bytes()
    kept = bytearray(2**28)
    assert sandbox_child._private_bytes() - before >= 2**28
    del kept
