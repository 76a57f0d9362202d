"""Whatever a decoder does to its process becomes a failure of that video, and the next one goes on."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvlm.errors import Reason, UserError, VideoError
from hvlm.video.decoding import decode_views
from hvlm.video.index import probe_video, scan_video
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from hvlm.video.views import FrameView
from pipelines.extraction.sandbox import DecodeLimits, Sandbox, SandboxError, process_sandbox
from tests.pipelines.extraction.conftest import write_video

VIEWS = {"clip": FrameView(sampling=SamplingConfig(fps=4.0), resize=48, crop=48)}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(DecodeLimits(timeout_s=20.0, memory_gib=1.0))
    yield made
    made.close()


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(write_video(tmp_path / "v.mp4"))


def frames(sandbox: Sandbox, video: str) -> np.ndarray:
    index = sandbox.scan(video)
    (segment,) = plan_segments(index, VIEWS, 60.0)
    return sandbox.decode("pyav", index, segment, VIEWS)["clip"]


def hostile(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make the next child run `code` wherever it would scan a file."""
    start = (
        f"import pipelines.extraction.sandbox_child as c\ndef scan_video(path):\n {code}\nc.scan_video = scan_video\n"
    )
    monkeypatch.setattr("pipelines.extraction.sandbox._COMMAND", start + "c.main({handle}, {memory_bytes})")


def test_the_child_gives_what_decoding_here_gives(sandbox: Sandbox, video: str) -> None:
    index = scan_video(video)
    (segment,) = plan_segments(index, VIEWS, 60.0)
    here = decode_views(index.stream, "pyav", segment, VIEWS)["clip"]
    assert np.array_equal(frames(sandbox, video), here) and here.shape == (8, 48, 48, 3) and here.any()
    assert sandbox.probe(video) == probe_video(video)
    pid = sandbox._child.process.pid  # type: ignore[union-attr]
    first = frames(sandbox, video)
    second = frames(sandbox, video)
    second_copy = second.copy()
    assert sandbox._child.process.pid == pid and np.array_equal(first, second_copy)  # type: ignore[union-attr]


def test_errors_of_the_video_come_through(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError) as caught:
        sandbox.scan(str(tmp_path / "bad.mp4"))
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        # PyDLL keeps the GIL while it calls: no thread of the process could end this.
        ("import ctypes; ctypes.PyDLL(None).sleep(1000)", Reason.TIMEOUT),
        ("import ctypes; ctypes.string_at(8)", Reason.CRASHED),
        ("import os; os.abort()", Reason.CRASHED),
        ("kept = [bytearray(2**26) for _ in range(64)]", Reason.OUT_OF_MEMORY),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Reason.OUT_OF_MEMORY),
        ("import os, time; os.closerange(3, 99); time.sleep(99)", Reason.CRASHED),
    ],
    ids=["hangs with the GIL", "segfaults", "aborts", "eats memory", "killed by the system", "hangs up and lives"],
)
def test_a_hostile_decoder_costs_its_video_only(
    sandbox: Sandbox, video: str, monkeypatch: pytest.MonkeyPatch, code: str, reason: Reason
) -> None:
    with monkeypatch.context() as patched:
        hostile(sandbox, patched, code)
        sandbox.limits = DecodeLimits(timeout_s=3.0, memory_gib=1.0)
        started = time.monotonic()
        with pytest.raises(VideoError) as caught:
            sandbox.scan(video)
        assert caught.value.reason is reason and video in caught.value.message
        assert time.monotonic() - started < 60
    assert frames(sandbox, video).shape == (8, 48, 48, 3)


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_a_child_that_was_killed_by_chance_costs_nothing(
    sandbox: Sandbox, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    wanted = frames(sandbox, video).copy()
    sandbox.close()
    once = tmp_path / "dead"
    start = f"""
import os, signal, pipelines.extraction.sandbox_child as c
real = c.decode_views
def decode_views(*arguments):
    if not os.path.exists({str(once)!r}):
        open({str(once)!r}, "w").close()
        {death}
    return real(*arguments)
c.decode_views = decode_views
"""
    monkeypatch.setattr("pipelines.extraction.sandbox._COMMAND", start + "c.main({handle}, {memory_bytes})")
    assert np.array_equal(frames(sandbox, video), wanted) and once.exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_request_leaves_no_answer_for_the_next(
    sandbox: Sandbox, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    other = str(write_video(tmp_path / "other.mp4", seconds=3.0))
    sandbox.probe(video)

    def interrupted(self: object, timeout: float = 0.0) -> bool:
        raise interruption

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.extraction.sandbox.Connection.poll", interrupted)
        with pytest.raises(interruption):
            sandbox.probe(video)
    assert sandbox.probe(other) == probe_video(other) != probe_video(video)


def test_too_many_frames_are_refused_before_they_are_decoded(video: str) -> None:
    small = Sandbox(DecodeLimits(output_gib=1e-6))
    with pytest.raises(VideoError, match=r"output_gib=1e-06; lower segment_s") as caught:
        frames(small, video)
    small.close()
    assert caught.value.reason is Reason.TOO_LARGE


def test_the_child_dies_with_its_parent(sandbox: Sandbox, video: str) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        forked = Sandbox(DecodeLimits())
        forked.scan(video)
        os.write(write, str(forked._child.process.pid).encode())  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGKILL)
    child = int(os.read(read, 20))
    os.waitpid(parent, 0)
    until = time.monotonic() + 20
    while time.monotonic() < until and Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists() or "Z" in _state(child)


def test_a_child_that_cannot_start_says_so(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.extraction.sandbox._COMMAND", "raise SystemExit(7)")
    with pytest.raises(SandboxError, match="ended with 7 while it started, twice"):
        Sandbox(DecodeLimits()).scan(video)


def test_a_child_that_was_killed_while_it_started_is_started_again(
    sandbox: Sandbox, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "dead"
    start = f"import os, signal\nif not os.path.exists({str(once)!r}):\n open({str(once)!r}, 'w').close()\n"
    start += " os.kill(os.getpid(), signal.SIGKILL)\nfrom pipelines.extraction.sandbox_child import main\n"
    monkeypatch.setattr("pipelines.extraction.sandbox._COMMAND", start + "main({handle}, {memory_bytes})")
    assert sandbox.probe(video) == probe_video(video) and once.exists()


def test_one_sandbox_per_process_and_limits() -> None:
    first = process_sandbox(DecodeLimits())
    assert process_sandbox(DecodeLimits()) is first
    assert process_sandbox(DecodeLimits(timeout_s=1.0)) is not first


def test_limits_are_checked() -> None:
    with pytest.raises(UserError, match="timeout_s"):
        DecodeLimits(timeout_s=0.0)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().split("State:")[1].splitlines()[0]
