"""New spans are new content, new words are not; a store is of one kind from its first video on."""

import json
from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.store.catalog import FeatureStore
from pipelines.store.snapshot import apply_snapshot, diff_listing, identify
from pipelines.store.sources import SourceConfig, list_source
from pipelines.store.spans import file_part, holds_spans, spans_of, with_spans
from tests.pipelines.store.test_snapshot import PROBE, counts

Segment = list[float] | None


def metadata(*segments: Segment, label: str = "run") -> str:
    captions = [{"text": label, "segment": segment} for segment in segments[1:]]
    return json.dumps({"annotations": [{"label": label, "segment": segments[0]}], "captions": captions})


def test_spans_are_those_of_annotations_and_captions_but_for_texts_of_the_whole_video() -> None:
    assert spans_of(metadata([1, 2], [4.5, 6], None, [5, 7])) == [(1, 2), (4.5, 7)]
    parts = {"summaries": [{"text": "a part", "segment": [1.5, 3]}, {"text": "all", "segment": None}]}
    assert spans_of(json.dumps(json.loads(metadata([1, 2], [5, 7])) | parts)) == [(1, 3), (5, 7)]


def test_the_hash_is_of_the_file_and_of_the_part_that_is_annotated() -> None:
    digest = with_spans("f" * 64, metadata([1, 2]))
    assert digest == with_spans("f" * 64, metadata([1.5, 2.0], [1.0, 1.5], None, label="jump"))
    assert digest != with_spans("e" * 64, metadata([1, 2])) and digest != with_spans("f" * 64, metadata([1, 2.5]))
    assert file_part(digest) == "f" * 64 == file_part("f" * 64)
    assert with_spans(digest, metadata([3, 4])) == with_spans("f" * 64, metadata([3, 4]))


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pipelines.store.snapshot.probe_video", lambda path: PROBE)
    (tmp_path / "videos").mkdir()
    for name in "ab":
        (tmp_path / "videos" / f"{name}.mp4").write_text(f"video {name}")
    return tmp_path / "videos"


def take(
    store: FeatureStore, videos: Path, wanted: bool = True, **spans: tuple[str, list[float]]
) -> tuple[dict[str, int], list[str]]:
    """Take a snapshot with a label and a span per video; return what it counts and which files it reads."""
    database = {name: {"annotations": [{"label": word, "segment": span}]} for name, (word, span) in spans.items()}
    annotations = videos.parent / "annotations.json"
    annotations.write_text(json.dumps({"database": database}))
    known = store.videos()
    listing = list_source(SourceConfig(uri=str(videos), annotations_uri=str(annotations)))
    diff = diff_listing(listing, known, holds_spans(known, wanted, store.uri))
    summary = apply_snapshot(store, diff, [identify(row) for row in diff.to_hash.to_dicts()])
    return counts(summary), diff.to_hash["video_id"].to_list()


def test_new_spans_change_the_content_without_reading_the_file_and_new_words_do_not(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore.open(str(tmp_path / "store"), create=True)

    def content() -> dict[str, str]:
        return dict(store.videos(["video_id", "content_hash"]).iter_rows())

    assert take(store, videos, a=("run", [1, 2]), b=("run", [1, 2])) == ({"new": 2}, ["a", "b"])
    first = content()
    assert all("+" in digest for digest in first.values())
    assert take(store, videos, a=("jump", [1, 2]), b=("run", [1, 2])) == ({"unchanged": 2, "relabelled": 1}, [])
    assert content() == first
    assert take(store, videos, a=("jump", [1, 2]), b=("run", [1, 3])) == ({"unchanged": 2, "relabelled": 1}, [])
    second = content()
    assert second["a"] == first["a"] and second["b"] != first["b"]
    assert file_part(second["b"]) == file_part(first["b"])
    # Also where no encoder of this run asks for spans; and a touched file is hashed, but not probed again.
    (videos / "b.mp4").touch()
    monkeypatch.setattr("pipelines.store.snapshot.probe_video", lambda path: pytest.fail(f"{path} is probed again"))
    found = take(store, videos, wanted=False, a=("jump", [1, 2]), b=("run", [1, 2]))
    assert found == ({"changed": 1, "unchanged": 1}, ["b"]) and content() == first


def test_a_store_that_was_filled_without_spans_refuses_them(tmp_path: Path, videos: Path) -> None:
    store = FeatureStore.open(str(tmp_path / "store"), create=True)
    take(store, videos, wanted=False, a=("run", [1, 2]))
    assert not any("+" in digest for digest in store.videos()["content_hash"])
    with pytest.raises(UserError, match=r"got an encoder that samples annotated spans; .* set another store_uri"):
        take(store, videos, a=("run", [1, 2]))
    assert not holds_spans(store.videos(), False, store.uri)
