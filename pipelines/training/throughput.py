"""Measures a training between two reports: samples/s, frames/s, share of time waiting for data, share of padding."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class Throughput:
    """Counts since the last `take`. Time inside `paused` (validation, checkpoints) does not count."""

    num_samples: int = 0
    num_rows: int = 0
    num_bad_rows: int = 0
    waited_s: float = 0.0
    _paused_s: float = 0.0
    _started_s: float = field(default_factory=time.perf_counter)
    _real_rows: list[Tensor] = field(default_factory=list)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside counts as waiting for data."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.waited_s += time.perf_counter() - started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside does not count."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - started

    def add(self, masks: Sequence[Tensor], num_bad_rows: int) -> None:
        """Count the global batches of a step. A mask is summed on its device and read at `take`, so a GPU is not waited
        for."""
        self.num_bad_rows += num_bad_rows
        for mask_NT in masks:
            self.num_samples += mask_NT.shape[0]
            self.num_rows += mask_NT.numel()
            self._real_rows.append(mask_NT.sum())

    def take(self) -> dict[str, float]:
        """Return the figures since the last call, and start anew."""
        elapsed = max(1e-9, time.perf_counter() - self._started_s - self._paused_s)
        frames = sum(int(count) for count in self._real_rows)
        figures = {
            "samples_per_s": self.num_samples / elapsed,
            "frames_per_s": frames / elapsed,
            "data_wait_share": self.waited_s / elapsed,
            "padding_share": 1.0 - frames / self.num_rows if self.num_rows else 0.0,
            "bad_rows": float(self.num_bad_rows),
        }
        self.__init__()  # type: ignore[misc]
        return figures
