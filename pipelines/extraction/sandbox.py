"""Decoding in a child process that can be killed: a decoder may hang while it holds the GIL, eat the memory or crash.

A child that dies is replaced and asked again, once: it may have been killed by chance, by the system or by hand. The
second death, a time limit or too much memory becomes a `VideoError` of the video it was busy with, and the next video
gets a new child. The child lives on between videos. Frames come back through memory that both processes map;
only small things are pickled.
"""

import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from hvlm.config import Config, require
from hvlm.errors import JobError, Reason, VideoError
from hvlm.video.index import ProbeResult, VideoIndex
from hvlm.video.packets import BackendName
from hvlm.video.segments import SegmentPlan
from hvlm.video.views import FrameView

_COMMAND = "from pipelines.extraction.sandbox_child import main; main({handle}, {memory_bytes})"
_START_S = 120.0  # importing PyTorch on a busy machine
_END_S = 2.0  # a crash writes its core first


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits(Config):
    """What decoding one segment, or reading one file's packets, may use.

    Args:
        timeout_s: wall-clock seconds. Making a copy (`decode.cache`) may take as many times this as there are segments.
        memory_gib: private memory of the decoding process.
        output_gib: decoded frames of one segment.
    """

    timeout_s: float = 300.0
    memory_gib: float = 4.0
    output_gib: float = 4.0

    def __post_init__(self) -> None:
        for name in ("timeout_s", "memory_gib", "output_gib"):
            value = getattr(self, name)
            require(value > 0, what=f"limits.{name}", got=value, expected="above 0", do=f"set e.g. {name}: 4")


class SandboxError(JobError):
    """The child process cannot be started: no fault of any video."""


class _ChildDied(Exception):
    """The child went away while it started or was asked; `code` is its return code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Child:
    """A running child; objects go through the connection, file descriptors through its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection
    socket: socket.socket

    def end_code(self) -> int:
        """Return the return code of a child that has hung up; one that lives on is ended."""
        try:
            return self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGHUP)  # no handler of Python's: it ends whoever holds the GIL
            return self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.socket.close()


class Sandbox:
    """A child process that scans and decodes; started when it is first needed, replaced when it is gone."""

    def __init__(self, limits: DecodeLimits) -> None:
        self.limits = limits
        self._child: _Child | None = None

    def scan(self, path: str) -> VideoIndex:
        """Return `scan_video(path)`.

        Raises:
            VideoError: as `scan_video`; timeout, out_of_memory, crashed.
        """
        index: VideoIndex = self._call(path, ("scan", path), None)
        return index

    def salvage(self, path: str) -> VideoIndex:
        """Return `salvage_video(path)`.

        Raises:
            VideoError: as `salvage_video`; timeout, out_of_memory, crashed.
        """
        index: VideoIndex = self._call(path, ("salvage", path), None)
        return index

    def probe(self, path: str) -> ProbeResult:
        """Return `probe_video(path)`.

        Raises:
            VideoError: as `probe_video`; timeout, out_of_memory, crashed.
        """
        result: ProbeResult = self._call(path, ("probe", path), None)
        return result

    def decode(
        self, backend: BackendName, index: VideoIndex, segment: SegmentPlan, views: dict[str, FrameView]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Return `decode_views` of these.

        Raises:
            VideoError: as `decode_views`; timeout, out_of_memory, crashed, too_large.
        """
        path = index.path
        shapes = {
            name: (len(plan.frame_index), views[name].crop, views[name].crop, 3) for name, plan in segment.views.items()
        }
        sizes = {name: int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
        total = sum(sizes.values())
        if total > self.limits.output_gib * 2**30:
            raise VideoError(
                Reason.TOO_LARGE,
                f"{path}: the {total / 2**30:.1f} GiB of frames of segment {segment.segment_index} are more than "
                f"decode.limits.output_gib={self.limits.output_gib:g}; lower segment_s or the sampling rate",
            )
        memory = os.memfd_create("frames", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, max(1, total))
            self._call(path, ("decode", path, index.stream, backend, segment, views), memory)
            mapped = mmap.mmap(memory, max(1, total))
        finally:
            os.close(memory)
        frames, start = {}, 0
        for name, shape in shapes.items():
            frames[name] = np.frombuffer(mapped, np.uint8, sizes[name], start).reshape(shape)
            start += sizes[name]
        return frames

    def shrink(self, index: VideoIndex, out_path: str, short_side: int, num_turns: int) -> None:
        """Do `shrink_video` of these.

        Args:
            num_turns: as many times `limits.timeout_s` it may take.

        Raises:
            VideoError: as `shrink_video`; timeout, out_of_memory, crashed. OSError: the copy cannot be written.
        """
        error = self._call(index.path, ("shrink", index.path, index, out_path, short_side), None, num_turns)
        if error is not None:
            raise error

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
        self._child = None

    def _call(self, path: str, request: tuple[Any, ...], memory: int | None, num_turns: int = 1) -> Any:
        try:
            answer = _twice(lambda: self._ask(path, request, memory, num_turns))
        except _ChildDied as died:
            raise _obituary(path, died.code) from died
        if isinstance(answer, VideoError):
            if answer.reason is Reason.OUT_OF_MEMORY:
                self.close()  # what it allocated before may still be there
            raise answer
        return answer

    def _ask(self, path: str, request: tuple[Any, ...], memory: int | None, num_turns: int) -> Any:
        child = self._living_child()
        try:
            child.connection.send(request)
            if memory is not None:
                socket.send_fds(child.socket, [b"m"], [memory])
            if not child.connection.poll(num_turns * self.limits.timeout_s):
                limit = "" if num_turns == 1 else f"{num_turns} × "
                limit += f"decode.limits.timeout_s={self.limits.timeout_s:g} s"
                message = f"{path}: still at it after {limit}; killed"
                raise VideoError(Reason.TIMEOUT, message)
            return child.connection.recv()
        except (EOFError, OSError) as error:
            code = child.end_code()
            self.close()
            raise _ChildDied(code) from error
        except BaseException:  # a time limit, a cancelled task: its late answer would pass for that of the next request
            self.close()
            raise

    def _living_child(self) -> _Child:
        if self._child is None or self._child.process.poll() is not None:
            self.close()
            try:
                self._child = _twice(self._start)
            except _ChildDied as died:
                message = f"the decoding process ended with {died.code} while it started, twice; see above for why"
                raise SandboxError(message) from died
        return self._child

    def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        command = _COMMAND.format(handle=theirs.fileno(), memory_bytes=int(self.limits.memory_gib * 2**30))
        process = subprocess.Popen(
            [sys.executable, "-c", command],
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        child = _Child(process, Connection(os.dup(ours.fileno())), ours)
        if not child.connection.poll(_START_S):
            child.end()
            raise SandboxError(f"the decoding process did not start within {_START_S:g} s")
        try:
            child.connection.recv()
        except (EOFError, OSError) as error:
            code = child.end_code()
            child.end()
            raise _ChildDied(code) from error
        return child


def _twice(attempt: Callable[[], Any]) -> Any:
    """Who killed a child? What it was busy with kills the next one too; chance, the system or a hand do not."""
    try:
        return attempt()
    except _ChildDied:
        return attempt()


def _obituary(path: str, code: int) -> VideoError:
    """Return why two children died."""
    if code == -signal.SIGKILL:  # not by us: the kernel ran out of memory
        message = f"{path}: the system killed the decoding process twice"
        return VideoError(Reason.OUT_OF_MEMORY, message, permanent=False)
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return VideoError(Reason.CRASHED, f"{path}: the decoding process died twice, of {cause}")


_of_this_process: Sandbox | None = None


def process_sandbox(limits: DecodeLimits) -> Sandbox:
    """Return the sandbox of this (Ray worker) process; its child lives on from task to task."""
    global _of_this_process
    if _of_this_process is None or _of_this_process.limits != limits:
        if _of_this_process is not None:
            _of_this_process.close()
        _of_this_process = Sandbox(limits)
    return _of_this_process
