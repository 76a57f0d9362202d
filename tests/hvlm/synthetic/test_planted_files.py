import json

import h5py
import numpy as np
import pytest

from hvlm.synthetic.planted_files import caption_text, summary_text, text_vectors, write_planted
from hvlm.synthetic.planted_hierarchy import PlantedHierarchyConfig, planted_hierarchy

CONFIG = PlantedHierarchyConfig(num_train=30, num_dev=4, num_test_seen=4, num_test_held_out=4)


@pytest.fixture(scope="module")
def world():
    return planted_hierarchy(0, CONFIG)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "new"
    write_planted(folder, world)
    return folder


def test_every_video_has_its_features_captions_and_summary(world, folder):
    database = json.loads((folder / "annotations.json").read_text())["database"]
    with h5py.File(folder / "features.h5") as file:
        assert set(file) == set(database) and len(database) == 42
        for index, video_id in enumerate(world.train.ids):
            np.testing.assert_array_equal(file[video_id], world.train.features_VCD[index])
    entry = database[world.test_seen.ids[2]]
    assert (entry["subset"], entry["duration"]) == ("validation", 8.0)
    assert [each["text"] for each in entry["captions"]] == [caption_text(a) for a in world.test_seen.captions_VC[2]]
    assert [each["segment"] for each in entry["captions"]] == [[clip, clip + 1] for clip in range(8)]
    first, then = world.test_seen.phases_V2[2]
    assert entry["summary"] == f"first phase {first}, then phase {then}"
    subsets = {video_id.rsplit("-", 2)[0]: each["subset"] for video_id, each in database.items()}
    assert subsets == {
        "planted-train": "training",
        "planted-dev": "dev",
        "planted-test_seen": "validation",
        "planted-test_held_out": "testing",
    }


def test_every_text_has_the_vector_of_its_tokens(world, folder):
    with np.load(folder / "texts.npz") as arrays:
        row = {str(text): vector for text, vector in zip(arrays["texts"], arrays["features"], strict=True)}
    assert len(row) == 40 + 30
    np.testing.assert_array_equal(row[caption_text(7)], np.eye(52)[7])
    for videos in (world.train, world.test_held_out):
        for tokens, (first, then) in zip(videos.summaries_V2, videos.phases_V2, strict=True):
            np.testing.assert_array_equal(
                row[summary_text(tokens, CONFIG)], np.eye(52)[40 + first] + np.eye(52)[46 + then]
            )
    np.testing.assert_array_equal(text_vectors(np.array([[0, 2]]), CONFIG)[0], np.eye(52)[0] + np.eye(52)[2])
