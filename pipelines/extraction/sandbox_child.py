"""The other end of `pipelines.extraction.sandbox`: scans, decodes and shrinks until its parent is gone."""

import ctypes
import mmap
import os
import resource
import signal
import socket
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hvlm.errors import Reason, VideoError
from hvlm.video.decoding import decode_views
from hvlm.video.index import VideoIndex, probe_video, scan_video
from hvlm.video.salvage import salvage_video
from hvlm.video.shrink import shrink_video

_PR_SET_PDEATHSIG = 1


def main(handle: int, memory_bytes: int) -> None:
    """Answer requests on a socket until it is closed.

    Args:
        handle: file descriptor of the socket.
        memory_bytes: private memory that decoding may use beyond what this process has now.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a hanging decoder would outlive its parent
    descriptors, connection = socket.socket(fileno=os.dup(handle)), Connection(handle)
    limit = _private_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    connection.send("ready")
    while True:
        try:
            request = connection.recv()
            memory = socket.recv_fds(descriptors, 1, 1)[1][0] if request[0] == "decode" else None
        except (EOFError, OSError):
            return
        connection.send(_answer(request, memory))


def _answer(request: tuple[Any, ...], memory: int | None) -> Any:
    try:
        if request[0] == "scan":
            return scan_video(request[1])
        if request[0] == "salvage":
            return salvage_video(request[1])
        if request[0] == "probe":
            return probe_video(request[1])
        if request[0] == "shrink":
            return _shrink(*request[2:])
        return _decode(request[2:], memory)
    except VideoError as error:
        return error
    except MemoryError as error:
        return VideoError(Reason.OUT_OF_MEMORY, f"{request[1]}: beyond decode.limits.memory_gib: {error}")
    except OSError as error:
        return VideoError(Reason.STORAGE_TRANSIENT, f"{request[1]}: {error}", permanent=False)
    except Exception as error:  # decoders have exceptions of their own
        if "allocate memory" in str(error):  # PyTorch's, while it resizes
            return VideoError(Reason.OUT_OF_MEMORY, f"{request[1]}: beyond decode.limits.memory_gib: {error}")
        return VideoError(Reason.UNREADABLE, f"{request[1]}: {type(error).__name__}: {error}")


def _shrink(index: VideoIndex, out_path: str, short_side: int) -> OSError | None:
    """Return the error of writing the copy, which is not the video's."""
    try:
        shrink_video(index, out_path, short_side)
    except OSError as error:
        return OSError(error.errno, error.strerror, out_path)  # PyAV's own classes cannot be sent
    return None


def _decode(arguments: tuple[Any, ...], memory: int | None) -> None:
    if memory is None:
        raise ValueError("decoding needs the memory for its frames")
    stream, backend, segment, views = arguments
    try:
        mapped = mmap.mmap(memory, 0)
    finally:
        os.close(memory)
    out, start = {}, 0
    for name, plan in segment.views.items():
        shape = (len(plan.frame_index), views[name].crop, views[name].crop, 3)
        size = int(np.prod(shape, dtype=np.int64))
        out[name] = np.frombuffer(mapped, np.uint8, size, start).reshape(shape)
        start += size
    decode_views(stream, backend, segment, views, out)


def _private_bytes() -> int:
    """Return VmData, what RLIMIT_DATA limits."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
