import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import scratch, storage
from tests.infra.faulty import plan

LEAVE = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from infra import scratch
with scratch.folder() as folder:
    (folder / "video.mp4").touch()
    scratch.make_file()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, with what a killed process left in it."""
    made = tmp_path / "tmp"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    scratch._prefix.cache_clear()
    assert subprocess.run([sys.executable, "-c", LEAVE, str(made)]).returncode == -signal.SIGKILL
    assert len(list(made.iterdir())) == 2
    return made


def test_the_first_of_a_process_removes_those_of_the_dead_alone(folder: Path) -> None:
    start, parent = scratch._start_of(os.getpid()), os.getppid()
    assert start is not None
    living = [f"{scratch._PLACE}-{os.getpid()}-{start}-a", f"{scratch._PLACE}-{parent}-{scratch._start_of(parent)}-b"]
    kept = {*living, "hvlm-bench-x", "hvlm-another-host-4026531836-999999999-1-c"}
    for name in kept:
        (folder / name).mkdir()
    (folder / f"{scratch._PLACE}-{os.getpid()}-{start - 5000}-d").mkdir()  # the number was another process's before
    late = folder / f"{scratch._PLACE}-999999999-1-e"
    with scratch.folder() as first, scratch.folder() as second:
        made = {first.name, Path(scratch.make_file()).name, second.name}
        assert {path.name for path in folder.iterdir()} == kept | made
        late.mkdir()
        with scratch.folder():
            assert late.exists()  # the folder is gone through once per process
    assert not first.exists() and not second.exists()


def test_what_another_user_left_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(folder.iterdir())
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    scratch.sweep(str(folder))
    assert set(folder.iterdir()) == before
    monkeypatch.undo()
    scratch.sweep(str(folder))
    assert set(folder.iterdir()) == set()


def test_copies_and_uploads_stand_there(folder: Path, tmp_path: Path) -> None:
    uri = plan(tmp_path / "remote") + "/v.mp4"

    def write(file: object) -> None:
        assert [path.is_file() for path in folder.iterdir()] == [True]

    storage.atomic_write(uri, write)
    with storage.local_copy(uri) as path:
        assert path.parent.parent == folder and path.parent.name.startswith(f"{scratch._PLACE}-{os.getpid()}-")
    assert list(folder.iterdir()) == []
