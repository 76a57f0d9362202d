import os
import random
from types import SimpleNamespace

import pytest

from hvlm.errors import JobError, Reason, VideoError
from infra import storage
from pipelines.store import snapshot
from pipelines.store.catalog import FeatureStore
from pipelines.store.plan import make_plan
from pipelines.store.snapshot import apply_snapshot, content_hash, diff_listing, identify
from pipelines.store.sources import SourceConfig, list_source

PROBE = SimpleNamespace(duration_s=3.0, fps=25.0, codec="h264", num_frames=75, width=64, height=48, num_streams=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    def probe(path):
        with open(path, "rb") as file:
            if not file.read().startswith(b"video"):
                raise VideoError(Reason.UNREADABLE, "no video")
        return PROBE

    monkeypatch.setattr(snapshot, "probe_video", probe)
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def store(tmp_path):
    return FeatureStore.open(str(tmp_path / "store"), create=True)


def take(store, folder, reads=None, **options):
    """Take a snapshot; `reads` collects the ids of the files that were read."""
    # By name: a file that moves to another folder keeps its id.
    source = SourceConfig(uri=str(folder), video_id="stem", **options)
    diff = diff_listing(list_source(source), store.videos())
    if reads is not None:
        reads += diff.to_hash["video_id"].to_list()
    return apply_snapshot(store, diff, [identify(row) for row in diff.to_hash.to_dicts()])


def put(path, text):
    path.write_text(text)


def counts(summary):
    names = ("new", "changed", "renamed", "unchanged", "tombstoned", "relabelled", "failed", "rejected")
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def test_a_first_snapshot_and_one_without_news(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    assert counts(take(store, folder)) == {"new": 2}
    videos = store.videos()
    assert videos.select("video_id", "duration_s", "codec", "num_frames").rows() == [
        ("a", 3.0, "h264", 75),
        ("b", 3.0, "h264", 75),
    ]
    reads = []
    assert counts(take(store, folder, reads)) == {"unchanged": 2}
    assert reads == []
    assert store.videos(include_tombstones=True).equals(videos)
    assert store._table("videos").version() == 1


def test_only_touched_and_changed_files_are_read(store, folder):
    for name in "abc":
        put(folder / f"{name}.mp4", f"video {name}")
    take(store, folder)
    os.utime(folder / "a.mp4", (1, 1))
    put(folder / "b.mp4", "video B")
    reads = []
    assert counts(take(store, folder, reads)) == {"changed": 1, "unchanged": 2}
    assert reads == ["a", "b"]
    assert counts(take(store, folder, reads)) == {"unchanged": 3}
    assert reads == ["a", "b"]


def test_a_moved_file_keeps_its_id_and_content(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    take(store, folder)
    before = store.videos()["content_hash"].to_list()
    (folder / "moved").mkdir()
    (folder / "a.mp4").rename(folder / "moved/a.mp4")
    assert counts(take(store, folder)) == {"renamed": 1, "unchanged": 1}
    assert store.videos()["uri"].to_list() == [f"{folder}/moved/a.mp4", f"{folder}/b.mp4"]
    assert store.videos()["content_hash"].to_list() == before


def test_a_renamed_file_is_a_new_id_with_the_old_content(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    take(store, folder)
    before = dict(store.videos().select("video_id", "content_hash").iter_rows())
    (folder / "a.mp4").rename(folder / "z.mp4")
    assert counts(take(store, folder)) == {"renamed": 1, "unchanged": 1, "tombstoned": 1}
    assert dict(store.videos().select("video_id", "content_hash").iter_rows()) == {"b": before["b"], "z": before["a"]}


def test_a_known_content_is_hashed_and_not_probed_again(store, folder, monkeypatch):
    """Touched, moved or renamed: what its headers say is known by its hash."""
    for name in "abcd":
        put(folder / f"{name}.mp4", f"video {name}")
    take(store, folder)
    before = store.videos().drop("snapshot", "uri", "stamp", "video_id", "key")
    os.utime(folder / "a.mp4", (1, 1))
    (folder / "moved").mkdir()
    (folder / "b.mp4").rename(folder / "moved/b.mp4")
    (folder / "c.mp4").rename(folder / "z.mp4")
    put(folder / "d.mp4", "video D")  # as long as before: only the hash tells
    probed, probe = [], snapshot.probe_video
    monkeypatch.setattr(snapshot, "probe_video", lambda path: probed.append(os.path.basename(path)) or probe(path))
    hashed, digest = [], snapshot.content_hash
    monkeypatch.setattr(snapshot, "content_hash", lambda *args: hashed.append(args[0]) or digest(*args))
    assert counts(take(store, folder)) == {"renamed": 2, "changed": 1, "unchanged": 1, "tombstoned": 1}
    assert probed == ["d.mp4"]
    assert sorted(map(os.path.basename, hashed)) == ["a.mp4", "b.mp4", "d.mp4", "z.mp4"]
    after = store.videos().sort("video_id").drop("snapshot", "uri", "stamp", "video_id", "key")
    same = [0, 1]  # a and b; z stands last, where c stood third
    assert after[same].equals(before[same]) and after[3].equals(before[2])


def test_gone_and_back(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    take(store, folder)
    (folder / "a.mp4").unlink()
    assert counts(take(store, folder)) == {"unchanged": 1, "tombstoned": 1}
    assert counts(take(store, folder)) == {"unchanged": 1}
    assert store.videos()["video_id"].to_list() == ["b"]
    put(folder / "a.mp4", "video a")
    assert counts(take(store, folder)) == {"new": 1, "unchanged": 1}


def test_new_metadata_is_committed_without_reading_the_video(store, folder, tmp_path):
    put(folder / "a.mp4", "video a")
    list_file = tmp_path / "list.csv"
    put(list_file, f"video_id,uri,camera\na,{folder}/a.mp4,1\n")
    take(store, list_file)
    put(list_file, f"video_id,uri,camera\na,{folder}/a.mp4,2\n")
    reads = []
    assert counts(take(store, list_file, reads)) == {"unchanged": 1, "relabelled": 1}
    assert reads == []
    assert '"camera":"2"' in store.videos()["metadata_json"][0]
    assert counts(take(store, list_file)) == {"unchanged": 1}


def test_a_file_that_is_no_video_is_recorded_once_and_not_read_again(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "bad.mp4", "text")
    put(folder / "empty.mp4", "")
    assert counts(take(store, folder)) == {"new": 3}
    failures = store.failures().sort("video_id").select("video_id", "stage", "reason", "permanent").rows()
    assert failures == [("bad", "identify", "unreadable", True), ("empty", "identify", "unreadable", True)]
    content = dict(store.videos().select("video_id", "content_hash").iter_rows())
    assert set(store.failures()["content_hash"]) == {content["bad"], content["empty"]}
    reads = []
    take(store, folder, reads)
    assert reads == [] and store.failures()["attempts"].to_list() == [1, 1]


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (PermissionError(13, "Permission denied"), "storage_permanent", True),
        (OSError(5, "I/O error"), "storage_transient", False),
        (RuntimeError("NoCredentials"), "storage_transient", False),
    ],
)
def test_a_file_that_cannot_be_read_keeps_its_old_row_and_is_tried_again(
    store, folder, monkeypatch, error, reason, permanent
):
    put(folder / "a.mp4", "video a")
    take(store, folder)
    before = store.videos()
    os.utime(folder / "a.mp4", (1, 1))

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_range", fail)
        assert counts(take(store, folder)) == {"failed": 1}
    assert store.videos().equals(before)
    assert store.failures().select("reason", "permanent").rows() == [(reason, permanent)]
    assert counts(take(store, folder)) == {"unchanged": 1}


def test_a_machine_that_cannot_probe_blames_no_video(folder):
    put(folder / "a.mp4", "video a")

    def probe(path):
        raise JobError("the decoding process cannot start")

    (row,) = list_source(SourceConfig(uri=str(folder))).frame.to_dicts()
    with pytest.raises(JobError, match="cannot start"):
        identify(row, probe)


def test_a_rejected_id_is_not_tombstoned_and_is_recorded_once(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    take(store, folder)
    (folder / "copy").mkdir()
    put(folder / "copy/a.mp4", "another a")
    for _ in range(2):
        assert counts(take(store, folder)) == {"unchanged": 1, "rejected": 2}
    assert store.videos()["video_id"].to_list() == ["a", "b"]
    assert store.failures()["attempts"].to_list() == [1, 1]


def test_a_lost_or_doubled_row_is_noticed(store, folder):
    put(folder / "a.mp4", "video a")
    put(folder / "b.mp4", "video b")
    diff = diff_listing(list_source(SourceConfig(uri=str(folder))), store.videos())
    rows = [identify(row) for row in diff.to_hash.to_dicts()]
    for wrong in (rows[:1], [*rows, rows[0]], [rows[0], rows[0]]):
        with pytest.raises(RuntimeError, match="row conservation"):
            apply_snapshot(store, diff, wrong)
    assert store.videos().is_empty()


@pytest.mark.parametrize("kind", ["sampled", "full"])
@pytest.mark.parametrize("size", [0, 10, 2**20, 2**20 + 1, 3_000_000])
def test_content_hash(tmp_path, kind, size):
    path = tmp_path / "file"
    data = bytearray(os.urandom(size))
    path.write_bytes(data)
    first = content_hash(str(path), size, kind)
    assert content_hash(str(path), size, kind) == first
    for position in {0, size - 1} if size else set():
        data[position] ^= 1
        path.write_bytes(data)
        assert content_hash(str(path), size, kind) != first
        data[position] ^= 1
    with pytest.raises(EOFError):
        path.write_bytes(data[:-1])
        content_hash(str(path), size + 1, kind)


def test_a_sampled_hash_reads_one_mebibyte(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5_000_000))
    read = []
    original = storage.read_range
    monkeypatch.setattr(
        storage, "read_range", lambda uri, start, size: read.append((start, size)) or original(uri, start, size)
    )
    content_hash(str(path), 5_000_000, "sampled")
    assert sum(size for _, size in read) == 2**20
    assert read[0][0] == 0 and read[-1] == (5_000_000 - 65_536, 65_536)


def put_large(path, hole=0, seed=0):
    """A 'video' of 3 MB; the hole lies between the blocks of a sampled hash."""
    data = bytearray(b"video" + random.Random(seed).randbytes(3_000_000))
    data[100_000 : 100_000 + hole] = bytes(hole)
    path.write_bytes(data)


def fail_for_good(store, video_id, **values):
    digest = dict(store.videos().select("video_id", "content_hash").iter_rows())[video_id]
    row = {"video_id": video_id, "content_hash": digest, "stage": "decode", "reason": "truncated", "message": "a hole"}
    store.commit_failures([row | {"permanent": True} | values])


def statuses(store):
    plan = make_plan(store.frames(), {"clip": "1"})
    return {video_id: runs for video_id, runs in plan.status.select("video_id", "runs").iter_rows()}


@pytest.mark.parametrize("kind", ["sampled", "full"])
def test_a_healed_file_is_tried_again(store, folder, kind):
    """A damaged download with a small hole is replaced by the whole file, of equal size."""
    put_large(folder / "a.mp4", hole=10_000)
    put_large(folder / "b.mp4", hole=10_000, seed=1)
    take(store, folder, content_hash=kind)
    fail_for_good(store, "a")
    fail_for_good(store, "b")
    assert statuses(store) == {"a": False, "b": False}
    take(store, folder, content_hash=kind)
    assert statuses(store) == {"a": False, "b": False}
    put_large(folder / "a.mp4")
    os.utime(folder / "a.mp4", (1, 1))
    take(store, folder, content_hash=kind)
    assert statuses(store) == {"a": True, "b": False}
    if kind == "sampled":  # it still fails: in quarantine again, one failure with two attempts
        fail_for_good(store, "a")
        assert statuses(store) == {"a": False, "b": False}
        assert sorted(store.failures()["attempts"]) == [1, 2]


def test_a_touched_file_whose_whole_content_is_hashed_stays_in_quarantine(store, folder):
    put_large(folder / "a.mp4")
    put(folder / "small.mp4", "video")
    for kind, name in (("full", "a"), ("sampled", "small")):
        other = FeatureStore.open(f"{store.uri}-{kind}", create=True)
        take(other, folder, content_hash=kind)
        fail_for_good(other, name)
        os.utime(folder / f"{name}.mp4", (2, 2))
        take(other, folder, content_hash=kind)
        assert statuses(other)[name] is False


def test_a_patch_between_the_sampled_blocks_is_seen_by_a_full_hash_alone(store, folder):
    """The stated limit of `content_hash: sampled`."""
    for kind, found in (("full", {"changed": 1}), ("sampled", {"unchanged": 1})):
        put_large(folder / "a.mp4")
        other = FeatureStore.open(f"{store.uri}-{kind}", create=True)
        take(other, folder, content_hash=kind)
        os.utime(folder / "a.mp4", (1, 1))
        assert counts(take(other, folder, content_hash=kind)) == {"unchanged": 1}
        put_large(folder / "a.mp4", hole=10_000)
        assert counts(take(other, folder, content_hash=kind)) == found
