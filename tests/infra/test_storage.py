import errno
import os

import fsspec
import pytest

from hvlm.errors import UserError
from infra import retries, storage
from tests.infra.faulty import ALWAYS, PERMANENT, TRANSIENT, Fault, calls, hits, plan


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """No test waits for a retry."""
    made = []
    monkeypatch.setattr(retries, "_sleep", made.append)
    return made


@pytest.fixture(params=["local", "file", "memory", "faulty"])
def base(request, tmp_path):
    if request.param == "faulty":
        return plan(tmp_path)
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://bucket/a"
    return str(tmp_path) if request.param == "local" else f"file://{tmp_path}"


def test_write_read_range_list_remove(base):
    uri = storage.join(base, "deep", "file.bin")
    assert not storage.exists(uri)
    storage.atomic_write(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.read_range(uri, 3, 4) == b"3456"
    assert storage.read_range(uri, 3, 0) == b""
    assert [*storage.list_files(base)] == ["deep/file.bin"]
    storage.atomic_write(uri, lambda file: file.write(b"streamed"))
    with storage.local_copy(uri) as path:
        assert path.read_bytes() == b"streamed"
    storage.remove(uri)
    storage.remove(uri)
    assert storage.list_files(base) == {}


def test_a_range_beyond_the_end_is_an_error(base):
    uri = storage.join(base, "file.bin")
    storage.atomic_write(uri, b"0123456789")
    with pytest.raises(EOFError, match="2 of the 4 bytes"):
        storage.read_range(uri, 8, 4)


def test_a_failing_writer_leaves_the_old_file_and_no_other(base):
    uri = storage.join(base, "file.bin")
    storage.atomic_write(uri, b"old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        storage.atomic_write(uri, fail)
    assert storage.read_bytes(uri) == b"old"
    assert [*storage.list_files(base)] == ["file.bin"]


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission")])
def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path, number, words):
    def full(file):
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    uri = str(tmp_path / "shard.tar")
    with pytest.raises(UserError, match=words) as caught:
        storage.atomic_write(uri, full)
    assert caught.value.what == uri
    assert [*tmp_path.iterdir()] == []


def test_a_really_full_disk():
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    assert isinstance(storage.explain_os_error(caught.value, "/dev/full"), UserError)


def test_relative_paths_become_absolute_and_remote_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute_uri("runs/store") == str(tmp_path / "runs/store")
    assert storage.absolute_uri(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a b"
    assert storage.absolute_uri(f"file://{tmp_path}/take #1?.mp4") == f"{tmp_path}/take #1?.mp4"
    assert storage.absolute_uri("file://localhost/data/a") == "/data/a"
    assert storage.absolute_uri("s3://bucket/a/") == "s3://bucket/a"
    assert storage.join("s3://bucket/a/", "/b", "c/") == "s3://bucket/a/b/c"


def test_a_missing_driver_says_what_to_install(monkeypatch):
    def no_driver(uri):
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_driver)
    with pytest.raises(UserError, match="pip install s3fs"):
        storage.filesystem("s3://bucket/a")


def test_an_unknown_scheme_is_a_user_error():
    with pytest.raises(UserError, match="storage URI"):
        storage.filesystem("nonsense://bucket/a")


def test_a_remote_copy_is_removed_afterwards():
    storage.atomic_write("memory://bucket/video.mp4", b"frames")
    with storage.local_copy("memory://bucket/video.mp4") as path:
        assert path.name == "video.mp4" and path.read_bytes() == b"frames"
    assert not path.exists()


def test_a_missing_local_file(tmp_path):
    with pytest.raises(FileNotFoundError), storage.local_copy(str(tmp_path / "none")):
        pass


def test_a_storage_that_cannot_be_reached_is_the_users_to_mend():
    class NoCredentialsError(Exception):
        """As botocore's: no OSError."""

    with (
        pytest.raises(UserError, match=r"source\.uri: got s3://b/v, .*NoCredentialsError: no key.*AWS_ACCESS_KEY_ID"),
        storage.reachable("source.uri", "s3://b/v"),
    ):
        raise NoCredentialsError("no key")


def test_reachable_lets_local_errors_missing_files_and_user_errors_pass():
    user_error = UserError(what="a", got="b", expected="c", do="d")
    passing = (FileNotFoundError("x"), EOFError("x"), user_error)
    for error, uri in ((ValueError("x"), "/v"), *((error, "s3://b/v") for error in passing)):
        with pytest.raises(type(error)) as caught, storage.reachable("source.uri", uri):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission to write")])
def test_a_parent_folder_that_cannot_be_made_is_a_user_error(tmp_path, monkeypatch, number, words):
    def refuse(path, **_):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(UserError, match=words):
        storage.atomic_write(str(tmp_path / "training" / "data.json"), b"{}")


def test_a_file_in_a_folders_place_is_a_user_error(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    for uri in (tmp_path / "out" / "data.json", tmp_path / "out" / "deep" / "data.json"):
        with pytest.raises(UserError, match="expected a folder there"):
            storage.atomic_write(str(uri), b"{}")


def test_another_os_error_passes_and_is_not_its_own_cause(tmp_path):
    def broken(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error") as caught:
        storage.atomic_write(str(tmp_path / "file.bin"), broken)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("no key"), "cannot be reached"), (FileNotFoundError("no bucket b"), "a bucket that exists")],
)
def test_an_upload_that_fails_is_a_user_error(monkeypatch, error, words):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", refuse)
    with pytest.raises(UserError, match=words):
        storage.atomic_write("memory://b/file.bin", b"x")


@pytest.fixture
def stored(tmp_path):
    """A file behind the faulty file system; gives its URI and a function that plans faults."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/video.mp4").write_bytes(b"0123456789")
    return f"{plan(tmp_path)}/deep/video.mp4", lambda *faults: plan(tmp_path, *faults)


def local_copy_of(uri):
    with storage.local_copy(uri) as path:
        return path.read_bytes()


READS = {
    "info": lambda uri: storage.info(uri)["size"] == 10,
    "exists": storage.exists,
    "read_bytes": lambda uri: storage.read_bytes(uri) == b"0123456789",
    "read_range": lambda uri: storage.read_range(uri, 2, 3) == b"234",
    "list_files": lambda uri: [*storage.list_files(uri.rpartition("/")[0])] == ["video.mp4"],
    "local_copy": lambda uri: local_copy_of(uri) == b"0123456789",
}
CALL = {"read_bytes": "cat_file", "read_range": "cat_file", "list_files": "ls", "local_copy": "get_file"}
WRITES = {
    "remove": lambda uri: storage.remove(uri) is None and not storage.exists(uri),
    "atomic_write": lambda uri: storage.atomic_write(uri, b"new") is None and storage.read_bytes(uri) == b"new",
}
CALL |= {"remove": "rm_file", "atomic_write": "put_file"}


@pytest.mark.parametrize("kind", TRANSIENT)
@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_what_fails_for_the_moment_is_done_all_the_same(stored, tmp_path, waits, name, kind):
    uri, faults = stored
    retries.take()
    faults(Fault(kind=kind, call=CALL.get(name, "info"), times=2))
    assert (READS | WRITES)[name](uri)
    assert hits(tmp_path) == [2] and retries.take() == len(waits) == 2


@pytest.mark.parametrize("kind", PERMANENT)
@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_what_fails_for_good_is_an_error_at_once(stored, tmp_path, waits, name, kind):
    uri, faults = stored
    faults(Fault(kind=kind, call=CALL.get(name, "info"), times=ALWAYS))
    with pytest.raises(Exception, match=r"Denied|Malformed|credentials|(?i:no space)"):
        (READS | WRITES)[name](uri)
    assert waits == [] and hits(tmp_path) == [1]
    assert (tmp_path / "deep/video.mp4").read_bytes() == b"0123456789"


@pytest.mark.parametrize("kind", ["torn", "short", "reset"])
def test_a_half_written_upload_is_noticed_and_made_again(stored, tmp_path, waits, kind):
    uri, faults = stored
    faults(Fault(kind=kind, call="put_file", times=3))
    storage.atomic_write(uri, b"much longer than before")
    assert storage.read_bytes(uri) == b"much longer than before"
    assert hits(tmp_path) == [3] and len(waits) == 3 and calls(tmp_path, "put_file") == 4


@pytest.mark.parametrize(("kind", "words"), [("torn", "reset"), ("short", "11 of 23 bytes are there after the upload")])
def test_a_half_that_stays_a_half_is_removed_and_an_error(stored, tmp_path, kind, words):
    uri, faults = stored
    faults(Fault(kind=kind, call="put_file", times=ALWAYS))
    for target in (f"{uri}.new", uri):
        with pytest.raises(UserError, match=f"cannot be reached .*{words}"):
            storage.atomic_write(target, b"much longer than before")
        assert not storage.exists(target)


def test_an_upload_that_does_not_begin_leaves_the_old_file(stored):
    uri, faults = stored
    faults(Fault(kind="timeout", call="put_file", times=ALWAYS))
    with pytest.raises(UserError, match="cannot be reached"):
        storage.atomic_write(uri, b"much longer than before")
    assert storage.read_bytes(uri) == b"0123456789"


def test_a_half_that_cannot_even_be_removed_is_told(stored, tmp_path, caplog):
    uri, faults = stored
    faults(Fault(kind="torn", call="put_file", times=ALWAYS), Fault(kind="denied", call="rm_file"))
    with pytest.raises(UserError, match="Connection reset"):
        storage.atomic_write(uri, b"much longer than before")
    assert f"{uri} may be half-written and could not be removed" in caplog.text


def test_what_was_just_uploaded_may_show_late(stored, tmp_path):
    uri, faults = stored
    faults(Fault(kind="late", call="info", after=1, times=2))  # the first look is the one before the upload
    storage.atomic_write(uri, b"new")
    assert hits(tmp_path) == [2] and storage.read_bytes(uri) == b"new"


def test_a_file_that_arrives_in_part_is_fetched_again(stored, tmp_path):
    uri, faults = stored
    faults(Fault(kind="short", call="get_file", times=2))
    assert local_copy_of(uri) == b"0123456789" and hits(tmp_path) == [2]
    faults(Fault(kind="short", call="get_file", times=ALWAYS))
    with pytest.raises(ConnectionError, match="5 of 10 bytes arrived"):
        local_copy_of(uri)


def test_a_full_remote_storage_says_so(stored):
    uri, faults = stored
    faults(Fault(kind="full", call="put_file"))
    with pytest.raises(UserError, match="no space left"):
        storage.atomic_write(uri, b"new")


def test_what_stands_there_is_never_answered_from_an_old_listing(monkeypatch):
    """s3fs remembers its listings: what was written since would not be there."""
    fs, asked = fsspec.filesystem("memory"), []
    monkeypatch.setattr(type(fs), "invalidate_cache", lambda self, path=None: asked.append(path))
    assert not storage.exists("memory://bucket/none") and asked == [None]


def test_a_range_that_an_object_store_refuses_because_it_begins_behind_the_end(monkeypatch):
    class Refusing:
        def cat_file(self, path, start, end):
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")

        def info(self, path):
            return {"size": 100}

        def invalidate_cache(self):
            pass

    monkeypatch.setattr(storage, "filesystem", lambda uri: (Refusing(), "b/v"))
    with pytest.raises(EOFError, match="0 of the 10 bytes from offset 100"):
        storage.read_range("s3://b/v", 100, 10)
    with pytest.raises(OSError, match="not satisfiable"):  # it had no reason to refuse this one
        storage.read_range("s3://b/v", 99, 10)
