"""Retrieval by both levels, and labels of the store or of a file by probe."""

import numpy as np

from hvlm.data.readers.howto100m import LabelledVideo
from hvlm.metrics.linear_probe import ProbeConfig
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.video_groups import LabelGroup, LongVideoGroup, RetrievalGroup
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video

EYE = np.eye(4)
LABELS = LabelGroup(ProbeConfig(l2_grid=(0.01,), max_iterations=20), 3, 0)


def test_retrieval_leaves_out_clips_without_rows():
    captions = [{"text": "one", "segment": (0.0, 1.0)}, {"text": "gone", "segment": (20.0, 30.0)}]
    videos = [
        video("a", {Place("a", 0.0, 10.0): EYE[0], Place("a", 0.0, 1.0, 2): EYE[0]}, summary="A", captions=captions),
        video(
            "b",
            {Place("b", 0.0, 10.0): EYE[1], Place("b", 0.0, 1.0, 2): EYE[1]},
            summary="B",
            captions=[{"text": "two", "segment": (0.0, 1.0)}],
        ),
        video("c", {}, summary="C"),
    ]
    texts = {"A": EYE[0], "B": EYE[1], "one": EYE[0], "two": EYE[0]}
    outcome = RetrievalGroup(2).measure(split_vectors(videos, texts, 4))
    found = {row.name: row for row in outcome.rows}
    assert found["val/video/text_to_video/recall_at_1"].ours == 1.0
    clips = found["val/clip/text_to_video/recall_at_1"]
    assert (clips.ours, clips.count) == (0.5, 2)
    assert outcome.columns["ours.text_to_video_rank"] == {"key-a": 1, "key-b": 1, "key-c": None}


def _labelled(split, count):
    random = np.random.default_rng(len(split))
    for i in range(count):
        name, vector = f"{split}{i}", EYE[i % 2] + 0.05 * random.normal(size=4)
        places = {Place(name, 0.0, 10.0): vector, Place(name, 2.0, 8.0): EYE[(i // 2) % 2]}
        yield video(name, places, split=split, activity=f"activity {i % 2}")


VIDEOS = [*_labelled("train", 12), *_labelled("dev", 4), *_labelled("val", 8)]


def test_activities_of_the_store():
    outcome = LABELS.measure(split_vectors(VIDEOS, {}, 4))
    found = {row.name: row for row in outcome.rows}
    assert found["val/video/linear_probe/activity/hit_at_1"].ours == 1.0
    assert outcome.columns["ours.top_activity"]["key-val1"] == "activity 1"
    assert outcome.per_class_ap["classification/activity"]["raw"] == {"activity 0": 1.0, "activity 1": 1.0}


def test_no_probe_on_what_probes_learn_from():
    vectors = split_vectors(VIDEOS, {}, 4)
    refused = LABELS.measure(type(vectors)("train", VIDEOS, vectors.texts, vectors.clip_columns))
    assert not refused.rows and "fitted on train" in refused.absent[0].why


def test_labels_of_a_file_are_learnt_from_its_training_table():
    rows = {
        part: [LabelledVideo(f"{split}{i}", (2.0, 8.0), (i // 2) % 2, 30.0) for split in splits for i in range(count)]
        for part, splits, count in (("train", ("train", "dev"), 12), ("test", ("val",), 9))
    }
    group = LongVideoGroup(rows["train"], rows["test"], LABELS)
    assert Place("val3", 2.0, 8.0) in set(group.places())
    outcome = group.measure(split_vectors(VIDEOS, {}, 4))
    found = {row.name: row for row in outcome.rows}
    hit = found["val/video/long_video/linear_probe/activity/hit_at_1"]
    assert (hit.ours, hit.count, hit.unit) == (1.0, 8, "segments")
    assert outcome.missing == {"val8": 1} | {f"dev{i}": 1 for i in range(4, 12)}
    assert not outcome.columns and "long_video/classification/activity" in outcome.per_class_ap
