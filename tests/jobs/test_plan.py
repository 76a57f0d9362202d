"""jobs.plan on a folder that changes; `test_extract.py` has it beside the extraction."""

from pathlib import Path

import pytest

from jobs import plan
from tests.jobs.test_extract import config
from tests.pipelines.extraction.conftest import write_video


def test_new_videos_are_counted_with_their_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", seconds=12.0)
    assert plan.job(config(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "3 videos in the source" in printed and "0.01 h of video" in printed
    assert [line.split()[:2] for line in printed.splitlines() if "never extracted" in line] == [["new", "3"]]
