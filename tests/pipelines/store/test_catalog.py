import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from hvlm.errors import JobError, UserError
from infra import retries
from pipelines.store import catalog
from pipelines.store.catalog import FeatureStore
from pipelines.store.schema import SAMPLES, STAGED
from tests.pipelines.store.world import World, ids


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "store")


def test_a_new_store_has_four_empty_tables(world):
    frames = world.store.frames()
    assert [frame.height for frame in (frames.videos, frames.staged, frames.samples, frames.failures)] == [0, 0, 0, 0]
    assert world.store.samples_version() == 0
    assert sorted(path.name for path in (world.root / "catalog").iterdir()) == [
        "failures",
        "samples",
        "staged",
        "videos",
    ]


def test_opening_again_keeps_everything_and_a_missing_store_is_a_user_error(world, tmp_path):
    world.add("a")
    world.snapshot()
    assert FeatureStore.open(str(world.root), create=True).videos().height == 1
    with pytest.raises(UserError, match="store_uri"):
        FeatureStore.open(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"schema_version": 99}', "newer one wrote"), ("{}", "damaged"), ("{", "damaged")],
)
def test_a_newer_or_damaged_store_is_refused(world, content, words):
    (world.root / "store.json").write_text(content)
    with pytest.raises(UserError, match=words):
        FeatureStore.open(str(world.root))


def test_the_newest_row_of_a_video_counts(world):
    world.add("a", "b")
    world.snapshot()
    world.add("a", content="v2")
    world.remove("b")
    world.snapshot()
    assert world.store.videos(["video_id", "stamp"]).rows() == [("a", "a:v2")]
    everything = world.store.videos(include_tombstones=True)
    assert everything.select("video_id", "state").rows() == [("a", "live"), ("b", "tombstone")]


def test_a_pinned_version_stays_and_an_unknown_one_is_refused(world):
    world.add(*ids(3))
    world.run()
    version, rows = world.store.samples_version(), world.store.samples().rows()
    world.add("late")
    world.run()
    assert world.store.samples(version).rows() == rows
    with pytest.raises(UserError, match="expected 0 to 2"):
        world.store.samples(99)


def test_failures_of_one_cause_are_one_row_with_attempts(world):
    row = {
        "video_id": "a",
        "content_hash": "1",
        "stage": "decode",
        "reason": "truncated",
        "message": "m",
        "permanent": False,
    }
    world.store.commit_failures([row])
    world.store.commit_failures([row | {"message": "again"}, row | {"video_id": "b"}])
    found = world.store.failures().sort("video_id").select("video_id", "attempts", "message", "encoder").rows()
    assert found == [("a", 2, "again", ""), ("b", 1, "m", "")]


def test_a_table_of_a_store_written_before_a_column_was_added_still_opens(tmp_path, monkeypatch):
    """`failures` had no `decoder`: it reads as null, and is there from the next failure on."""
    row = {"video_id": "a", "content_hash": "1", "stage": "decode", "reason": "timeout", "message": "m"}
    with monkeypatch.context() as before:
        tables = {name: dict(columns) for name, columns in catalog.TABLES.items()}
        del tables["failures"]["decoder"]
        before.setattr(catalog, "TABLES", tables)
        store = FeatureStore.open(str(tmp_path / "old"), create=True)
        store.append_failures(
            [dict.fromkeys(tables["failures"], "") | row | {"permanent": True, "attempts": 1, "at_s": 1.0}]
        )
    store = FeatureStore.open(str(tmp_path / "old"))
    assert store.failures().select("video_id", "decoder").rows() == [("a", None)]
    store.commit_failures([row | {"permanent": True, "decoder": "pyav 1"}, row | {"video_id": "b", "permanent": True}])
    assert store.failures().sort("video_id").select("decoder", "attempts").rows() == [("pyav 1", 2), ("", 1)]


def test_rows_with_other_columns_are_refused(world):
    with pytest.raises(ValueError, match="columns"):
        world.store.commit_staged([{"video_id": "a"}])


def test_empty_commits_write_nothing(world):
    world.store.commit_staged([])
    world.store.commit_failures([])
    world.snapshot()
    assert world.store.commit_samples(pl.DataFrame(schema=SAMPLES), 0) == 0
    logs = [path for path in (world.root / "catalog").rglob("_delta_log/*.json") if path.stem != "0" * 20]
    assert logs == []


def test_of_two_publishes_at_the_same_moment_one_fails(world, monkeypatch):
    world.add(*ids(2))
    world.run()
    version, row = world.store.samples_version(), world.store.samples().head(1)
    write = catalog.write_deltalake

    def just_after_a_rival(*args, **options):
        write(str(world.root / "catalog/samples"), row, mode="append")
        write(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(JobError, match="another job has published"):
        patch.setattr(catalog, "write_deltalake", just_after_a_rival)
        world.store.commit_samples(row, version)
    assert world.store.samples_version() == version + 1
    with pytest.raises(JobError, match="another job has published"):
        world.store.commit_samples(row, version)
    assert world.store.commit_samples(row, version + 1) == world.store.samples_version() == version + 2


def test_a_commit_that_the_storage_refuses_is_no_rival(world, monkeypatch):
    def refused(*_, **__):
        raise CommitFailedError("the request was wrong")

    monkeypatch.setattr(catalog, "write_deltalake", refused)
    with pytest.raises(CommitFailedError):
        world.store.commit_samples(pl.DataFrame([dict.fromkeys(SAMPLES)], schema=SAMPLES), 0)


def test_grown_tables_refuse_deletion_and_keep_their_log_for_years(world):
    world.add("a")
    world.snapshot()
    table = DeltaTable(str(world.root / "catalog/videos"))
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 3650 days"
    with pytest.raises(DeltaError, match="append"):
        table.delete()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("No space left on device (os error 28)"), "no space left"),
        (DeltaError("Permission denied (os error 13)"), "permission"),
    ],
)
def test_a_full_disk_inside_delta_lake_is_a_user_error(world, monkeypatch, error, words):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(catalog, "write_deltalake", full)
    with pytest.raises(UserError, match=words):
        world.store.commit_videos(one_video(world))


def one_video(world):
    world.add("a")
    return pl.DataFrame([world._row("a", 1)], schema=catalog.TABLES["videos"])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)
    retries.take()


def flaky(monkeypatch, fails, error, before=True):
    """Let the first calls fail, before or after the commit is made."""
    write, left = catalog.write_deltalake, iter([True] * fails)

    def call(*args, **options):
        fail = next(left, False)
        if not fail or not before:
            write(*args, **options)
        if fail:
            raise error

    monkeypatch.setattr(catalog, "write_deltalake", call)


FAILURE = {"video_id": "a", "content_hash": "1", "stage": "decode", "reason": "timeout", "message": "m"}
COMMITS = {
    "failures": lambda store: store.commit_failures([FAILURE | {"permanent": True}]),
    "samples": lambda store: store.commit_samples(pl.DataFrame([dict.fromkeys(SAMPLES)], schema=SAMPLES), 0),
    "staged": lambda store: store.replace_staged(pl.DataFrame([dict.fromkeys(STAGED)], schema=STAGED)),
}


@pytest.mark.parametrize("name", list(COMMITS))
@pytest.mark.parametrize("before", [True, False], ids=["refused", "written, then an error"])
@pytest.mark.parametrize("kind", [OSError, DeltaError, CommitFailedError])
def test_a_commit_that_the_storage_fails_for_the_moment_is_made_once(world, monkeypatch, quick, name, before, kind):
    flaky(monkeypatch, 2 if before else 1, kind("Generic S3 error: 503 Slow Down"), before)
    COMMITS[name](world.store)
    assert world.store._scan(name).collect().height == 1
    assert world.store._table(name).version() == 1
    assert retries.take() == (2 if before else 1)


def test_an_answer_that_comes_late_doubles_nothing(world, monkeypatch, quick):
    """The first try reaches the table only while the second is being made: only one of them can be its successor."""
    write, first = catalog.write_deltalake, []

    def late(table, rows, **options):
        if not first:
            first.append((DeltaTable(table.table_uri, version=table.version()), rows, options))
            raise OSError("operation timed out")
        if len(first) == 1:
            write(first[0][0], first[0][1], **first[0][2])
            first.append(())
        write(table, rows, **options)

    monkeypatch.setattr(catalog, "write_deltalake", late)
    COMMITS["failures"](world.store)
    assert world.store._scan("failures").collect().height == 1


def test_a_storage_that_fails_for_ever_ends_the_commit(world, monkeypatch, quick):
    flaky(monkeypatch, 99, DeltaError("error sending request"))
    with pytest.raises(ConnectionError, match="error sending request"):
        COMMITS["samples"](world.store)
    assert retries.take() == retries.ATTEMPTS - 1 and world.store.samples_version() == 0


def test_attempts_are_read_once_while_nobody_else_may_write(world, monkeypatch):
    reads, failures = [], FeatureStore.failures
    monkeypatch.setattr(FeatureStore, "failures", lambda self: reads.append(1) or failures(self))
    COMMITS["failures"](world.store)
    with world.store.writing("test"):
        for number in (2, 3, 4):
            COMMITS["failures"](world.store)
            assert failures(world.store)["attempts"].to_list() == [number]
        world.store.append_failures([*failures(world.store).with_columns(attempts=pl.lit(0)).to_dicts()])
        COMMITS["failures"](world.store)
    assert failures(world.store).sort("at_s")["attempts"].to_list() == [1]
    assert len(reads) == 2
