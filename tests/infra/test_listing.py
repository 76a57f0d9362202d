"""A listing is whole or an error."""

import errno

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from infra import retries
from infra.listing import find_below, find_matches
from tests.infra.faulty import ALWAYS, ERRORS, PERMANENT, Fault, FaultyFileSystem, calls, plan


@pytest.fixture
def root(tmp_path):
    for name in ("a.mp4", "deep/b.mp4", "deep/er/c.mp4", "deep/er/c.txt", "other/d.mp4", ".trash/e.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    made = []
    monkeypatch.setattr(retries, "_sleep", made.append)
    return made


def below(root, *faults):
    """The names below the root, through a file system with these faults."""
    plan(root, *faults)
    return names(find_below(FaultyFileSystem(), str(root)), root)


def names(found, root):
    return sorted(name.removeprefix(f"{root}/") for name, info in found.items() if info["type"] == "file")


EVERY = [".trash/e.mp4", "a.mp4", "deep/b.mp4", "deep/er/c.mp4", "deep/er/c.txt", "other/d.mp4"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_it_finds_what_fsspec_finds(root, slash):
    fs = LocalFileSystem()
    assert find_below(fs, f"{root}{slash}") == fs.find(str(root), detail=True)
    for pattern in ("*.mp4", "deep/*", "**/*.mp4", "*/[bd].mp4", "deep/??/*"):
        found = find_matches(fs, f"{root}/{pattern}", lambda folder: False)
        assert found == fs.glob(f"{root}/{pattern}", detail=True) and found


def test_no_folder_no_files(root):
    assert find_below(LocalFileSystem(), f"{root}/none") == {}
    assert find_matches(LocalFileSystem(), f"{root}/none/*.mp4", lambda folder: False) == {}


def test_a_folder_that_fails_for_the_moment_is_listed_again_and_only_that_one(root, waits):
    assert below(root, Fault(kind="throttled", call="ls", where="deep/er", times=2)) == EVERY
    assert len(waits) == 2 and calls(root, "ls") == 5 + 2


@pytest.mark.parametrize("kind", ["input/output", "timeout", *PERMANENT])
def test_a_folder_that_cannot_be_listed_is_an_error(root, kind):
    error = type(ERRORS[kind]())
    with pytest.raises(error):
        below(root, Fault(kind=kind, call="ls", where="deep/er", times=ALWAYS))
    for pattern in ("**/*.mp4", "deep/*/*.mp4"):
        with pytest.raises(error):
            find_matches(FaultyFileSystem(), f"{root}/{pattern}", lambda folder: False)


def test_a_folder_that_may_be_skipped_is_left_out_only_if_it_is_closed(root):
    plan(root, Fault(kind="denied", call="ls", where=".trash"), Fault(kind="denied", call="ls", where="deep/er"))
    may_skip = lambda folder: "/." in folder  # noqa: E731
    with pytest.raises(PermissionError):
        find_below(FaultyFileSystem(), str(root), may_skip)
    plan(root, Fault(kind="denied", call="ls", where=".trash"))
    assert names(find_below(FaultyFileSystem(), str(root), may_skip), root) == EVERY[1:]
    plan(root, Fault(kind="full", call="ls", where=".trash"))
    with pytest.raises(OSError, match="No space") as caught:
        find_below(FaultyFileSystem(), str(root), may_skip)
    assert caught.value.errno == errno.ENOSPC


def test_an_object_store_is_listed_at_once(monkeypatch):
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("a/b/1", "a/c/2", "d/3"):
        fs.pipe_file(f"/bucket/{name}", b"x")
    own, made = type(fs).find, []

    def find(self, path, **options):
        made.append(path)
        if len(made) == 1:
            raise ConnectionResetError
        return own(self, path, **options)

    monkeypatch.setattr(type(fs), "find", find)
    assert [*find_below(fs, "/bucket/a")] == ["/bucket/a/b/1", "/bucket/a/c/2"]
    assert made == ["/bucket/a"] * 2
