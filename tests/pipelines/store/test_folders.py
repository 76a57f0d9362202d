import os

import fsspec
import pytest

from hvlm.errors import UserError
from infra import storage
from pipelines.store.folders import find_files, is_hidden
from pipelines.store.sources import SourceConfig, list_source


def ids(result):
    return dict(result.frame.select("video_id", "size_bytes").iter_rows())


@pytest.mark.parametrize("pattern", ["", "/*.mp4"])
def test_links_to_videos_are_videos(tmp_path, pattern):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/target").write_bytes(b"12345")
    source = tmp_path / "source"
    source.mkdir()
    (source / "own.mp4").write_bytes(b"123")
    (source / "linked.mp4").symlink_to("../elsewhere/target")
    (source / "lost.mp4").symlink_to("nowhere")
    (source / "folder.mp4").symlink_to("../elsewhere")
    os.utime(tmp_path / "elsewhere/target", (7, 7))
    result = list_source(SourceConfig(uri=f"{source}{pattern}"))
    assert ids(result) == {"own": 3, "linked": 5}
    assert dict(result.frame.select("video_id", "stamp").iter_rows())["linked"] == "7.0"
    assert [(row["video_id"], row["reason"]) for row in result.rejected] == [("lost", "storage_permanent")]


@pytest.fixture
def refuse(monkeypatch):
    """Make os.scandir refuse folders of one name: the tests may run as root, whom no mode stops."""
    scandir = os.scandir

    def make(name):
        def refusing(path="."):
            if os.path.basename(str(path)) == name:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return make


@pytest.mark.parametrize("pattern", ["", "/**/*.mp4"])
def test_an_unreadable_folder_below_is_named(tmp_path, refuse, pattern):
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "deep/closed").mkdir(parents=True)
    refuse("closed")
    with pytest.raises(UserError, match=f"{tmp_path}/deep/closed without permission"):
        find_files(f"{tmp_path}{pattern}")


def test_an_unreadable_hidden_folder_is_skipped_as_all_hidden_ones(tmp_path, refuse):
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / ".trash").mkdir()
    refuse(".trash")
    root, found = find_files(str(tmp_path))
    assert (root, [*found]) == (str(tmp_path), [f"{tmp_path}/a.mp4"])


@pytest.mark.parametrize("method", ["info", "find"])
def test_a_bucket_that_refuses_is_a_user_error(monkeypatch, method):
    fs = fsspec.filesystem("memory")
    storage.atomic_write("memory://bucket/a.mp4", b"1")

    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(fs), method, refuse)
    with pytest.raises(UserError, match="memory://bucket without permission"):
        find_files("memory://bucket")


def test_hidden_counts_below_the_root_only():
    assert is_hidden("/data/.cache/a", "/data")
    assert not is_hidden("/data/.cache/a", "/data/.cache")
