import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvlm.errors import UserError
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy
from pipelines.science import worlds
from pipelines.science.worlds import make_world, world_sha256
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.training.text import read_metas

TINY = PlantedHierarchyConfig(num_train=40, num_dev=5, num_test_seen=5, num_test_held_out=5)


def summaries(store_uri: str, split: str) -> dict[str, str | None]:
    return {meta.video_id: meta.summary for meta in read_metas(open_manifest(store_uri), (split,))}


def told(store_uri: str, split: str) -> dict[str, list[str]]:
    """The captions of each video in the order of its clips."""
    return {
        meta.video_id: [str(caption["text"]) for caption in meta.captions]
        for meta in read_metas(open_manifest(store_uri), (split,))
    }


def test_permuted_worlds_differ_in_the_summaries_of_training_videos_alone(tmp_path: Path) -> None:
    true, permuted = (make_world(tmp_path, name, 3, TINY) for name in ("planted", "permuted"))
    counts = dict(open_manifest(true).frame.group_by("split").len().iter_rows())
    assert counts == {"train": 40, "dev": 5, "val": 5, "test": 5}
    before, after = summaries(true, "train"), summaries(permuted, "train")
    assert before.keys() == after.keys() and sorted(map(str, before.values())) == sorted(map(str, after.values()))
    assert sum(before[key] != after[key] for key in before) > 25
    for split in ("dev", "val", "test"):
        assert summaries(true, split) == summaries(permuted, split)
    captions = [
        {meta.video_id: meta.captions for meta in read_metas(open_manifest(uri), ("train",))}
        for uri in (true, permuted)
    ]
    assert captions[0] == captions[1]


def test_shuffled_worlds_differ_in_the_order_of_training_clips_alone(tmp_path: Path) -> None:
    true, shuffled = (make_world(tmp_path, name, 3, TINY) for name in ("planted", "shuffled"))
    assert world_sha256(true) != world_sha256(shuffled) and summaries(true, "train") == summaries(shuffled, "train")
    for split, changes in (("train", True), ("dev", False), ("val", False), ("test", False)):
        before, after = told(true, split), told(shuffled, split)
        assert (before != after) == changes
        assert {key: sorted(texts) for key, texts in before.items()} == {
            key: sorted(texts) for key, texts in after.items()
        }


def test_a_world_is_made_once_and_another_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_uri = make_world(tmp_path, "planted", 0, TINY)
    stamps = {path: os.stat(path).st_mtime_ns for path in Path(tmp_path).rglob("*") if path.is_file()}
    assert make_world(tmp_path, "planted", 0, TINY) == store_uri
    assert {path: os.stat(path).st_mtime_ns for path in Path(tmp_path).rglob("*") if path.is_file()} == stamps
    with pytest.raises(UserError, match="another world"):
        make_world(tmp_path, "planted", 0, replace(TINY, label_noise=0.1))
    world = planted_hierarchy(0, TINY)
    world.train.features_VCD[0, 0, 0] += 1e-3
    monkeypatch.setattr(worlds, "planted_hierarchy", lambda *_: world)  # another generator, the same configuration
    with pytest.raises(UserError, match="another world"):
        make_world(tmp_path, "planted", 0, TINY)


def test_a_stores_clips_are_the_worlds(small_store: str, small_world: PlantedHierarchyConfig) -> None:
    manifest = open_manifest(small_store)
    videos = planted_hierarchy(0, small_world).test_held_out
    rows = {row["video_id"]: row for row in manifest.rows("planted").to_dicts()}
    for index in (0, 59):
        features, meta = read_sample(manifest.store_uri, rows[videos.ids[index]])
        np.testing.assert_array_equal(features, videos.features_VCD[index].astype(np.float16))
        assert meta.split == "test" and meta.timestamps_s == [0, 1, 2, 3, 4, 5, 6, 7]
