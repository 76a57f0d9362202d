import json
import os
from datetime import date

import fsspec
import polars as pl
import pytest
from fsspec.implementations.local import LocalFileSystem

from hvlm.errors import UserError
from infra import storage
from pipelines.store.sources import SourceConfig, list_source, load_annotations, stamp_of


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listing(uri, **options):
    return list_source(SourceConfig(uri=str(uri), **options))


def found(result):
    return dict(result.frame.select("video_id", "uri").iter_rows())


def metadata(result, video_id):
    return json.loads(dict(result.frame.select("video_id", "metadata_json").iter_rows())[video_id])


def test_a_folder_is_searched_to_the_bottom_for_videos_only(tmp_path):
    put(tmp_path, "a.mp4", "deep/b.MKV", "notes.txt", ".hidden.mp4", ".cache/c.mp4", "v 1.2 é.mp4")
    result = listing(tmp_path)
    assert found(result) == {
        "a": f"{tmp_path}/a.mp4",
        "deep/b": f"{tmp_path}/deep/b.MKV",
        "v 1.2 é": f"{tmp_path}/v 1.2 é.mp4",
    }
    assert dict(result.frame.select("video_id", "key").iter_rows())["v 1.2 é"] == "x--v_201_2e2_20_c3_a9"
    assert dict(result.frame.select("video_id", "size_bytes").iter_rows())["a"] == 5
    assert result.rejected == []


def test_ids_by_path_and_extensions_by_config(tmp_path):
    put(tmp_path, "cam1/1.mp4", "cam2/1.mp4", "cam2/2.raw")
    assert set(found(listing(tmp_path))) == {"cam1/1", "cam2/1"}
    assert set(found(listing(tmp_path, extensions=(".raw",), video_id="stem"))) == {"2"}


def test_a_glob_and_a_single_file(tmp_path):
    put(tmp_path, "x1.mp4", "x2.mp4", "y1.mp4", "sub/x3.mp4")
    assert set(found(listing(f"{tmp_path}/x*.mp4"))) == {"x1", "x2"}
    assert set(found(listing(f"{tmp_path}/**/x*.mp4", video_id="path"))) == {"x1", "x2", "sub/x3"}
    assert set(found(listing(tmp_path / "y1.mp4"))) == {"y1"}


def test_a_remote_folder():
    fsspec.filesystem("memory").store.clear()
    storage.atomic_write("memory://bucket/videos/a.mp4", b"123")
    result = listing("memory://bucket/videos")
    assert result.frame.select("video_id", "size_bytes").rows() == [("a", 3)]
    assert storage.read_bytes(result.frame["uri"][0]) == b"123"


def test_a_text_list_is_relative_to_itself(tmp_path):
    put(tmp_path, "data/a.mp4", "data/b.mp4")
    (tmp_path / "data/list.txt").write_text(f"# videos\na.mp4\n\n{tmp_path}/data/b.mp4\na.mp4\ngone.mp4\n")
    result = listing(tmp_path / "data/list.txt")
    assert found(result) == {"a": f"{tmp_path}/data/a.mp4", "b": f"{tmp_path}/data/b.mp4"}
    assert result.num_collapsed == 1
    assert [(row["video_id"], row["reason"]) for row in result.rejected] == [("gone", "storage_permanent")]


def test_a_csv_brings_its_columns_and_keeps_leading_zeros(tmp_path):
    put(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text(
        "video_id,uri,subset,summary,caption,camera,empty\n007,a.mp4,validation,a day,a man,c3,\n"
    )
    result = listing(tmp_path / "list.csv")
    assert metadata(result, "007") == {
        "subset": "validation",
        "split": None,
        "annotations": [],
        "captions": [{"text": "a man", "segment": None}],
        "summary": "a day",
        "columns": {"camera": "c3"},
    }


def test_a_parquet_list_keeps_types_and_turns_dates_into_text(tmp_path):
    put(tmp_path, "a.mp4")
    columns = {"video_id": [7], "uri": ["a.mp4"], "split": ["dev"], "year": [1999], "day": [date(2020, 1, 2)]}
    pl.DataFrame(columns).write_parquet(tmp_path / "list.parquet")
    result = listing(tmp_path / "list.parquet")
    assert metadata(result, "7")["columns"] == {"year": 1999, "day": "2020-01-02"}
    assert result.frame["split"].to_list() == ["dev"]


def test_annotations_are_attached_and_reconciled(tmp_path):
    put(tmp_path, "v_-JzrTO5oJc4.mp4", "extra.mp4")
    video = {"subset": "training", "annotations": [{"label": "Rafting", "segment": [1, 2]}], "summary": "s"}
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"-JzrTO5oJc4": video, "lost": {}}}))
    result = listing(tmp_path, annotations_uri=str(tmp_path / "gt.json"))
    values = metadata(result, "v_-JzrTO5oJc4")
    assert (values["subset"], values["annotations"][0]["label"], values["summary"]) == ("training", "Rafting", "s")
    assert result.reconciliation.without_annotation == ["extra"]
    assert result.reconciliation.without_video == ["lost"]


def test_summaries_of_parts_change_the_metadata_of_their_own_video_alone(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    part = {"text": "the start", "segment": [0.0, 2.0], "pass": "one"}
    hashes = []
    for summaries in ([], [part]):
        database = {"a": {"summary": "s", "summaries": summaries}, "b": {"summary": "t"}}
        (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
        result = listing(tmp_path, annotations_uri=str(tmp_path / "gt.json"))
        assert metadata(result, "a").get("summaries", []) == summaries and "summaries" not in metadata(result, "b")
        hashes.append(result.frame["metadata_hash"].to_list())
    assert hashes[0][0] != hashes[1][0] and hashes[0][1] == hashes[1][1]


def test_all_files_of_a_double_id_are_rejected(tmp_path):
    put(tmp_path, "a.mp4", "sub/a.mp4", "b.mp4")
    assert set(found(listing(tmp_path))) == {"a", "sub/a", "b"}
    result = listing(tmp_path, video_id="stem")
    assert set(found(result)) == {"b"}
    rejected = [(row["uri"], row["reason"], row["permanent"]) for row in result.rejected]
    assert rejected == [(f"{tmp_path}/a.mp4", "duplicate_id", True), (f"{tmp_path}/sub/a.mp4", "duplicate_id", True)]
    assert f"{tmp_path}/a.mp4, {tmp_path}/sub/a.mp4" in result.rejected[0]["message"]


def test_a_name_with_broken_bytes_is_rejected_and_the_others_go_on(tmp_path):
    put(tmp_path, "good.mp4")
    with open(os.fsencode(tmp_path) + b"/bad\xff.mp4", "wb") as file:
        file.write(b"x")
    result = listing(tmp_path)
    assert set(found(result)) == {"good"}
    assert [(row["video_id"], row["reason"]) for row in result.rejected] == [(r"bad\udcff", "bad_name")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing", None, "existing folder"),
        ("nothing.csv", None, "existing list"),
        ("empty", "folder", "no such file"),
        ("none*.mp4", None, "no such file"),
        ("empty.txt", "# nothing\n", "empty"),
        ("empty.csv", "", "empty"),
        ("header.csv", "video_id,uri\n", "empty"),
        ("no_uri.csv", "video_id,path\na,a.mp4\n", "column 'uri'"),
        ("holes.csv", "video_id,uri\n,a.mp4\n", "1 empty cells"),
        ("missing.txt", "a.mp4\nb.mp4\n", "all rejected"),
        ("split.csv", "video_id,uri,split\na,here.mp4,holdout\n", "split of video 'a'"),
        ("subset.csv", "video_id,uri,subset\na,here.mp4,holdout\n", "subset of video 'a'"),
        ("bad.parquet", "not parquet", "readable csv or parquet"),
    ],
)
def test_bad_sources_are_user_errors(tmp_path, name, content, words):
    put(tmp_path, "here.mp4")
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        listing(tmp_path / name)


def test_a_folder_without_permission_is_a_user_error(tmp_path, monkeypatch):
    put(tmp_path, "a.mp4")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, whom no mode stops
    with pytest.raises(UserError, match="without permission"):
        listing(tmp_path)


def test_missing_annotations_are_a_user_error(tmp_path):
    put(tmp_path, "a.mp4")
    with pytest.raises(UserError, match="annotations_uri"):
        listing(tmp_path, annotations_uri=str(tmp_path / "none.json"))


def test_annotations_that_may_not_be_read_are_a_user_error(tmp_path, monkeypatch):
    put(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"annotations_uri: got .*IsADirectoryError"):
        load_annotations(str(tmp_path))

    def refuse(uri):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "read_bytes", refuse)  # the tests may run as root, whom no mode stops
    with pytest.raises(UserError, match=r"annotations_uri: got .*PermissionError"):
        load_annotations(str(tmp_path / "gt.json"))


def test_lists_and_folders_with_brackets_in_their_names(tmp_path):
    put(tmp_path, "talks [2024]/a.mp4")
    folder = tmp_path / "talks [2024]"
    (folder / "list [v2].csv").write_text("video_id,uri\na,a.mp4\n")
    assert found(listing(folder / "list [v2].csv")) == found(listing(folder)) == {"a": f"{folder}/a.mp4"}


def test_nan_is_an_empty_cell_and_infinity_is_text(tmp_path):
    put(tmp_path, "a.mp4")
    nan = float("nan")
    columns = {"score": [nan], "top": [float("inf")], "marks": [[1.0, nan]], "subset": [nan], "caption": [nan]}
    pl.DataFrame({"video_id": ["a"], "uri": ["a.mp4"]} | columns).write_parquet(tmp_path / "list.parquet")
    values = metadata(listing(tmp_path / "list.parquet"), "a")
    assert values["columns"] == {"top": "Infinity", "marks": [1.0, None]}
    assert (values["subset"], values["captions"]) == (None, [])


@pytest.mark.parametrize("name", ["subset", "split", "summary", "caption"])
def test_numbers_where_texts_belong_are_a_user_error(tmp_path, name):
    put(tmp_path, "a.mp4")
    pl.DataFrame({"video_id": ["a"], "uri": ["a.mp4"], name: [3]}).write_parquet(tmp_path / "list.parquet")
    with pytest.raises(UserError, match=f"{name} of video 'a': got 3; expected a text"):
        listing(tmp_path / "list.parquet")


def test_text_lists_may_begin_with_a_mark_and_must_be_utf8(tmp_path):
    put(tmp_path, "a.mp4", "é.mp4")
    (tmp_path / "list.txt").write_bytes("\ufeffé.mp4\r\na.mp4\r\n".encode())
    assert set(found(listing(tmp_path / "list.txt"))) == {"é", "a"}
    (tmp_path / "list.txt").write_bytes("é.mp4\n".encode("latin-1"))
    with pytest.raises(UserError, match="expected UTF-8 text"):
        listing(tmp_path / "list.txt")


def test_lines_that_cannot_be_looked_at_are_rejected_one_by_one(tmp_path, monkeypatch):
    put(tmp_path, "a.mp4", "denied.mp4", "slow.mp4", "endless.mp4")
    names = ["a.mp4", "a.mp4/b.mp4", "x" * 300 + ".mp4", "denied.mp4", "slow.mp4", "endless.mp4", "nul\0.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    info = LocalFileSystem.info
    errors = {"denied.mp4": PermissionError(13, "Permission denied"), "slow.mp4": OSError(5, "I/O error")}

    def looking(fs, path, **options):
        name = os.path.basename(str(path))
        if name in errors:
            raise errors[name]
        return info(fs, path, **options) | ({"size": None} if name == "endless.mp4" else {})

    monkeypatch.setattr(LocalFileSystem, "info", looking)
    result = listing(tmp_path / "list.txt")
    assert set(found(result)) == {"a"}
    causes = {row["video_id"][:8]: (row["reason"], row["permanent"]) for row in result.rejected}
    denied = ("storage_permanent", True)
    assert causes.pop("slow") == ("storage_transient", False)
    assert causes == dict.fromkeys(["b", "xxxxxxxx", "denied", "endless", "nul\0"], denied)


def test_remote_lines_that_cannot_be_reached_are_rejected_one_by_one(tmp_path, monkeypatch):
    """An unknown scheme stays unknown; a library's own exception (no credentials) may pass."""
    put(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4\nnoscheme://bucket/b.mp4\nmemory://bucket/c.mp4\n")

    class NoCredentialsError(Exception):
        """As botocore's: no OSError."""

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", refuse)
    result = listing(tmp_path / "list.txt")
    assert set(found(result)) == {"a"}
    unknown, refused = sorted(result.rejected, key=lambda row: row["video_id"])
    assert (unknown["reason"], unknown["permanent"]) == ("storage_permanent", True)
    assert "a scheme with an installed driver" in unknown["message"]
    assert (refused["reason"], refused["permanent"]) == ("storage_transient", False)
    assert "NoCredentialsError: Unable to locate credentials" in refused["message"]


def test_equal_lines_count_once_and_other_captions_are_added(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.csv").write_text(
        "video_id,uri,caption,split\na,a.mp4,one,dev\na,a.mp4,two,dev\nb,b.mp4,,\n"
        f"a,a.mp4,one,dev\na,{tmp_path}/a.mp4,,dev\nb,b.mp4,,\n"
    )
    result = listing(tmp_path / "list.csv")
    assert metadata(result, "a")["captions"] == [{"text": text, "segment": None} for text in ("one", "two")]
    assert (metadata(result, "b")["captions"], result.rejected) == ([], [])
    assert (result.num_collapsed, result.num_merged) == (2, 2)


def test_lines_that_disagree_about_one_file_are_rejected_by_column(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.csv").write_text(
        "video_id,uri,caption,split,camera\na,a.mp4,one,dev,c1\na,a.mp4,two,test,c1\na,a.mp4,two,dev,c2\nb,b.mp4,,,\n"
    )
    result = listing(tmp_path / "list.csv")
    assert set(found(result)) == {"b"}
    assert {row["reason"] for row in result.rejected} == {"duplicate_id"} and len(result.rejected) == 3
    assert "3 lines give 'a' different values of split, camera;" in result.rejected[0]["message"]


def test_the_stamp_is_the_etag_or_the_time():
    assert stamp_of({"ETag": '"abc"', "LastModified": 3}) == "abc"
    assert stamp_of({"mtime": 1.5}) == "1.5"
    assert stamp_of({}) == ""


@pytest.mark.parametrize(
    "values", [{"uri": ""}, {"uri": "a", "extensions": ("mp4",)}, {"uri": "a", "extensions": (".MP4",)}]
)
def test_wrong_configs_are_refused(values):
    with pytest.raises(UserError, match=r"source\."):
        SourceConfig(**values)
