"""A preview opens a bounded number of files and estimates the rest."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from hvlm.errors import UserError
from pipelines.extraction import preview as preview_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.run import extract
from pipelines.store.catalog import FeatureStore
from pipelines.store.snapshot import apply_snapshot, diff_listing, identify
from pipelines.store.sources import list_source
from pipelines.store.spans import file_part
from tests.pipelines.extraction.conftest import write_video


def test_hours_of_unread_files_are_the_mean_of_the_read_ones(
    config: Callable[..., ExtractConfig], videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in videos.iterdir():
        path.unlink()
    for number in range(6):
        write_video(videos / f"{number}.mp4", seconds=6.0)
    whole = preview(config())
    assert whole.num_unread == 0 and whole.predicted.hours == pytest.approx(36 / 3600)
    monkeypatch.setattr(preview_module, "READ_AT_MOST", 2)
    part = preview(config())
    assert part.predicted.feature_bytes == whole.predicted.feature_bytes
    assert part.num_unread == 4 and part.predicted.hours == pytest.approx(36 / 3600)
    assert part.plan.counts["clip"]["new"] == 6 and part.predicted.seconds is not None and part.predicted.seconds > 0


@pytest.mark.parametrize("spans", [False, True])
def test_moved_files_are_foretold_although_they_are_not_opened(
    config: Callable[..., ExtractConfig], videos: Path, spans: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = {"sampling": {"kind": "spans", "fps": 2.0}} if spans else {}
    clip = {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"} | sampling
    annotations = videos.parent / "annotations.json"
    segments = [{"label": "waving", "segment": [0.0, 1.0]}]
    annotations.write_text(json.dumps({"database": {"v0": {"subset": "training", "annotations": segments}}}))
    made = config(source={"uri": str(videos), "annotations_uri": str(annotations)}, encoders={"clip": clip})
    store = FeatureStore.open(made.store_uri, create=True)
    take_snapshot(store, made)
    before = store.videos()
    (videos / "moved").mkdir()
    for path in list(videos.glob("*.mp4")):
        path.rename(videos / "moved" / path.name)
    write_video(videos / "added.mp4")
    monkeypatch.setattr(preview_module, "READ_AT_MOST", 0)
    todo = preview(made).plan.todo
    known, found = set(before["content_hash"]), set(todo["content_hash"])
    if spans:  # v0 has another id now, for which none is annotated
        known, found = ({file_part(value) for value in values} for values in (known, found))
    assert known < found and todo.height == before.height + 1
    assert todo["duration_s"].null_count() == before["duration_s"].null_count() + 1


def test_a_machine_without_gpu_guesses_the_time_of_a_job_that_needs_one(config: Callable[..., ExtractConfig]) -> None:
    made = config()
    encoders = {name: replace(encoder, precision="fp16") for name, encoder in made.encoders.items()}
    seconds = preview(replace(made, encoders=encoders)).predicted.seconds
    assert seconds is not None and seconds > 0


def test_a_store_of_another_source_is_refused_by_the_plan_as_by_the_job(
    ray_cluster: None, config: Callable[..., ExtractConfig], tmp_path: Path
) -> None:
    extract(config())
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "x.mp4")
    other = config(source={"uri": str(tmp_path / "other")})
    for job in (preview, extract):
        with pytest.raises(UserError, match="source of the store"):
            job(other)


def test_a_store_that_cannot_be_reached_is_named(
    config: Callable[..., ExtractConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> bool:
        raise RuntimeError("no such endpoint")

    monkeypatch.setattr(preview_module.storage, "exists", refuse)
    with pytest.raises(UserError, match="store_uri: got memory://b/store, which cannot be reached"):
        preview_module._frames(config(store_uri="memory://b/store"))


def test_a_failed_file_that_was_written_anew_is_foretold_to_be_tried_again(
    config: Callable[..., ExtractConfig], videos: Path
) -> None:
    made, path = config(), videos / "v0.mp4"
    path.write_bytes(path.read_bytes() + bytes(2**20))  # too long to be hashed whole
    store = FeatureStore.open(made.store_uri, create=True)
    take_snapshot(store, made)
    failure = {"stage": "decode", "reason": "truncated", "message": "a hole", "permanent": True}
    for row in store.videos().filter(pl.col("video_id").is_in(["v0", "v1"])).to_dicts():
        store.commit_failures([failure | {"video_id": row["video_id"], "content_hash": row["content_hash"]}])
    assert {"v0", "v1"}.isdisjoint(preview(made).plan.todo["video_id"])
    os.utime(path, (1, 1))
    seen = preview(made).plan
    take_snapshot(store, made)
    assert "v0" in seen.todo["video_id"] and "v1" not in seen.todo["video_id"]
    assert seen.counts == preview(made).plan.counts


def take_snapshot(store: FeatureStore, made: ExtractConfig) -> None:
    diff = diff_listing(list_source(made.source), store.videos(), made.samples_spans)
    apply_snapshot(store, diff, [identify(row) for row in diff.to_hash.to_dicts()])
