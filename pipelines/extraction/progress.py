"""Progress of an extraction: a bar on a terminal, one line every few seconds in a job log."""

import logging
import sys
import threading
import time
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)
LINE_EVERY_S = 5.0
TERMINAL_EVERY_S = 0.5


@dataclass(slots=True)
class Progress:
    """Counts what has come out of the pipeline and shows it while its `with` block runs, also when nothing comes."""

    num_videos: int
    done: int = 0
    failed: int = 0
    frames: int = 0
    started_s: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        self._thread = threading.Thread(target=self._show_until_ended, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._show()
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def update(self, *, done: int, failed: int, frames: int) -> None:
        """Set the number of finished and failed videos, and add frames."""
        self.done, self.failed = done, failed
        self.frames += frames

    def line(self) -> str:
        """Return the state in one line: videos, frames, frames/s, failed, ETA."""
        elapsed = max(1e-9, time.monotonic() - self.started_s)
        finished = self.done + self.failed
        eta = "?" if finished == 0 else f"{elapsed / finished * (self.num_videos - finished):.0f} s"
        return (
            f"videos {finished}/{self.num_videos}, frames {self.frames}, {self.frames / elapsed:.0f} frames/s, "
            f"failed {self.failed}, ETA {eta}"
        )

    def _show_until_ended(self) -> None:
        while not self._ended.wait(TERMINAL_EVERY_S if sys.stderr.isatty() else LINE_EVERY_S):
            self._show()

    def _show(self) -> None:
        if not sys.stderr.isatty():
            logger.info("%s", self.line())
            return
        filled = int(30 * (self.done + self.failed) / max(1, self.num_videos))
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {self.line()}   ", end="", file=sys.stderr, flush=True)
