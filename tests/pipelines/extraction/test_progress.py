"""One line says where an extraction stands."""

from pipelines.extraction.progress import Progress


def test_the_line_counts_what_was_reported() -> None:
    progress = Progress(num_videos=10)
    progress.update(done=3, failed=1, frames=40)
    progress.update(done=4, failed=1, frames=20)
    line = progress.line()
    assert "videos 5/10" in line and "frames 60" in line and "failed 1" in line and "ETA" in line


def test_no_estimate_before_anything_is_finished() -> None:
    assert "ETA ?" in Progress(num_videos=10).line()
