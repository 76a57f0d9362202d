"""How many threads an encoder on CPUs should use: as many as the decoders leave idle.

The threads of a forward pass wait for each other. Beside decoders that keep every core busy two of them were slower
than one (a decode-bound job on 2 cores: 0.61 and 0.63 of its limit against 0.74 and 1.10 in the same runs); where
encoding is the limit the decoders stand still, and every core is free for it.
"""

import os
import time
from typing import Any

import psutil

_WINDOW_S = 0.5  # the kernel counts CPU time in ticks of 10 ms


class SpareCpus:
    """Counts, from one call to the next, the CPUs open to this process that other processes left idle."""

    def __init__(self) -> None:
        self._cpus = os.sched_getaffinity(0)
        self._spare = 1
        self._before = self._read()

    def num_threads(self) -> int:
        """Return how many threads this process can have without taking turns with others, at least 1.

        It is what held since the call before; one thread, until half a second has passed.
        """
        now = self._read()
        wall_s, others_s = (after - before for after, before in zip(now, self._before, strict=True))
        if wall_s >= _WINDOW_S:
            self._before = now
            self._spare = min(len(self._cpus), max(1, round(len(self._cpus) - others_s / wall_s)))
        return self._spare

    def _read(self) -> tuple[float, float]:
        """Return the wall clock and the CPU seconds that all other processes have had."""
        each_cpu = psutil.cpu_times(percpu=True)
        busy_s = sum(_busy_s(each_cpu[cpu]) for cpu in self._cpus)
        return time.monotonic(), busy_s - time.process_time()


def _busy_s(times: Any) -> float:
    """Return the seconds that a CPU was not idle; a guest's are in `user` too."""
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
