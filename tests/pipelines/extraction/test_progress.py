"""One line says where an extraction stands."""

import io
import sys
import time

from pipelines.extraction import progress as progress_module
from pipelines.extraction.progress import Progress


def test_the_line_counts_what_was_reported() -> None:
    progress = Progress(num_videos=10)
    progress.update(done=3, failed=1, frames=40)
    progress.update(done=4, failed=1, frames=20)
    line = progress.line()
    assert "videos 5/10" in line and "frames 60" in line and "failed 1" in line and "ETA" in line


def test_no_estimate_before_anything_is_finished() -> None:
    assert "ETA ?" in Progress(num_videos=10).line()


def test_a_terminal_gets_a_bar_that_fills(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress(num_videos=4) as progress:
        progress.update(done=2, failed=1, frames=9)
    shown = terminal.getvalue().split("\r")[-1]
    assert shown.startswith(f"[{'#' * 22}{'.' * 8}] videos 3/4, frames 9") and shown.endswith("\n")


def test_lines_come_while_nothing_is_finished(monkeypatch, caplog) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0.01)
    with caplog.at_level("INFO", logger=progress_module.__name__), Progress(num_videos=4) as progress:
        while len(caplog.records) < 3:
            time.sleep(0.005)
        progress.update(done=4, failed=0, frames=9)
    assert "videos 0/4" in caplog.records[0].getMessage()
    assert "videos 4/4, frames 9" in caplog.records[-1].getMessage()
