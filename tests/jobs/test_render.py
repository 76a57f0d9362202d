"""The render job: its configs load, its report says what it did, its exit code is the truth."""

import errno
import os
import sys
from pathlib import Path

import pytest

from hvlm.synthetic.dataset import RenderConfig
from infra.config_io import load_config
from jobs import render
from jobs.entry import run_job


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["render", "--config", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        run_job("render", render.__doc__, RenderConfig, render.job)
    return int(exit_info.value.code or 0)


@pytest.fixture
def tiny(repository: Path, tmp_path: Path) -> list[str]:
    """The smoke config, smaller still."""
    size = [
        "world.num_videos=2",
        "world.min_duration_s=6",
        "world.max_duration_s=6",
        "picture.fps=4",
        "num_processes=1",
    ]
    return [str(repository / "jobs/configs/render_smoke.yaml"), f"output_path={tmp_path / 'world'}", *size]


def test_the_job_renders_once_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: list[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, *tiny) == 0
    printed = capsys.readouterr().out
    assert "rendered     5 files" in printed
    assert "videos       2, 0.2 minutes, 2 activities" in printed
    assert str(tmp_path / "world" / "annotations.json") in printed
    assert _run(monkeypatch, *tiny) == 0
    assert "nothing to do: all 5 files of this world are already there" in capsys.readouterr().out


def test_a_wrong_value_ends_with_2_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    assert _run(monkeypatch, *tiny, "world.orders_per_family=7") == 2
    assert "orders_per_family: got 7" in capsys.readouterr().err


def test_the_demo_is_what_the_issue_asks_for(repository: Path) -> None:
    config = load_config(RenderConfig, str(repository / "jobs/configs/render_demo.yaml"))
    assert config.world.num_videos >= 48
    assert 20.0 <= config.world.min_duration_s <= config.world.max_duration_s <= 60.0
    assert config.bad_files


def test_a_full_disk_is_the_users_to_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_text", full)
    assert _run(monkeypatch, *tiny) == 2
    said = capsys.readouterr().err
    assert "no space left" in said.lower() and "Traceback" not in said
