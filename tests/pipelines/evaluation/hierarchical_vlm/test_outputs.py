"""What is handed over: rows per video, submissions by official id."""

import json

import numpy as np

from hvlm.metrics.proposals import VideoSegments
from pipelines.evaluation.hierarchical_vlm.outputs import (
    MeasuredSplit,
    classification_submission,
    localisation_submission,
    sample_frame,
)
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE
from pipelines.evaluation.outputs import to_json
from tests.pipelines.evaluation.made_records import record, segment

RECORDS = [
    record("v_abcdefghijk", np.eye(4), summary="first", annotations=[segment("spin", 0, 2)]),
    record("other", np.eye(4), annotations=[]),
]
FOUND = VideoSegments(np.array([1]), np.array([[0.0, 2.0]]), np.array([0.75]))
BY_HEAD = VideoSegments(np.array([0]), np.array([[1.0, 2.5]]), np.array([0.5]))
DETAILS = {
    "consistency": {},
    "classification": {
        "labels": {"classes": ["blink", "spin"], "probability": {"ours": np.array([[0.1, 0.9], [0.8, 0.2]])}},
    },
    "localisation": {
        "classes": ["blink", "spin"],
        "found": {r.key: {PROBE: {"ours": FOUND}, HEAD: {"ours": BY_HEAD}} for r in RECORDS},
    },
    "retrieval": {"ranks": {"video/text_to_video/ours": np.array([3]), "clip/text_to_video/ours": np.array([1, 2])}},
}
RESULT = MeasuredSplit("val", RECORDS, [], [], DETAILS)


def test_one_row_per_video_and_null_where_there_is_nothing():
    frame = sample_frame(RESULT)
    assert frame["key"].to_list() == ["v_abcdefghijk", "other"]
    assert frame["labels"].to_list() == [["spin"], []]
    assert frame["activity"].to_list() == ["spin", None]
    assert frame["ours.top_labels"].to_list() == ["spin", "blink"]
    assert frame["ours.text_to_video_rank"].to_list() == [3, None]
    assert frame["raw.distant_cosine"].to_list() == [None, None]


def test_submissions_use_the_official_id_and_order():
    classification = classification_submission(RESULT)
    assert list(classification["results"]) == ["abcdefghijk", "other"]
    assert classification["results"]["other"][0] == {"label": "blink", "score": 0.8}
    localisation = localisation_submission(RESULT, PROBE)
    assert localisation["results"]["abcdefghijk"] == [{"label": "spin", "score": 0.75, "segment": [0.0, 2.0]}]
    assert json.loads(to_json(localisation))["version"] == "VERSION 1.3"
    by_head = localisation_submission(RESULT, HEAD)
    assert by_head["results"]["other"] == [{"label": "blink", "score": 0.5, "segment": [1.0, 2.5]}]


def test_without_labels_there_is_no_submission():
    bare = MeasuredSplit(
        "val", RECORDS, [], [], {"consistency": {}, "classification": {}, "localisation": {}, "retrieval": {}}
    )
    assert classification_submission(bare) is None
    assert localisation_submission(bare, PROBE) is None
    assert sample_frame(bare).height == 2
