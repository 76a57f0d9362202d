"""Progress of an extraction: a bar on a terminal, one line every few seconds in a job log."""

import logging
import sys
import time
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)
LINE_EVERY_S = 5.0


@dataclass(slots=True)
class Progress:
    """Counts what has come out of the pipeline and shows it."""

    num_videos: int
    done: int = 0
    failed: int = 0
    frames: int = 0
    started_s: float = field(default_factory=time.monotonic)
    _shown_s: float = 0.0

    def update(self, *, done: int, failed: int, frames: int) -> None:
        """Set the number of finished and failed videos, add frames, and show the state when it is due."""
        self.done, self.failed = done, failed
        self.frames += frames
        now = time.monotonic()
        if sys.stderr.isatty():
            self._draw()
        elif now - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return the state in one line: videos, frames, frames/s, failed, ETA."""
        elapsed = max(1e-9, time.monotonic() - self.started_s)
        finished = self.done + self.failed
        eta = "?" if finished == 0 else f"{elapsed / finished * (self.num_videos - finished):.0f} s"
        return (
            f"videos {finished}/{self.num_videos}, frames {self.frames}, {self.frames / elapsed:.0f} frames/s, "
            f"failed {self.failed}, ETA {eta}"
        )

    def close(self) -> None:
        """End the bar's line."""
        if sys.stderr.isatty():
            self._draw()
            print(file=sys.stderr)

    def _draw(self) -> None:
        filled = int(30 * (self.done + self.failed) / max(1, self.num_videos))
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {self.line()}   ", end="", file=sys.stderr, flush=True)
