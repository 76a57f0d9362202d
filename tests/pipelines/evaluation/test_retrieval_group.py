"""Retrieval: summaries and captions, equal texts as one group, absent texts and kinds, blocks of queries."""

import numpy as np
import pytest

from pipelines.evaluation import retrieval_group as module
from pipelines.evaluation.retrieval_group import all_texts, ranks_of, retrieval_group
from tests.pipelines.evaluation.made_records import record, space

ROWS = np.eye(3)


def _records(texts=("one", "two", "three")):
    eye = np.eye(3).tolist()
    return [
        record(
            f"v{i}",
            ROWS,
            summary=text,
            captions=[{"text": f"{text} clip", "segment": [0, 1]}],
            spaces={"ours": space(eye[i], [eye[i]]), "raw": space([1, 1, 1], [[1, 1, 1]])},
        )
        for i, text in enumerate(texts)
    ]


def _features(texts, kind):
    eye = np.eye(3, dtype=np.float32)
    order = {text: i for i, text in enumerate(("one", "two", "three"))}
    return {text: eye[order[text.split()[0]]] if kind == "ours" else np.ones(3, np.float32) for text in texts}


def test_perfect_and_collapsed_features():
    records = _records()
    texts = {kind: _features(all_texts(records), kind) for kind in ("ours", "raw")}
    group = retrieval_group(records, "val", texts, {})
    rows = {row.name: row for row in group.rows}
    assert len(rows) == 16
    for name in ("val/video/text_to_video/recall_at_1", "val/clip/video_to_text/recall_at_1"):
        assert (rows[name].ours, rows[name].raw) == (1.0, 0.0)
        assert rows[name].chance == pytest.approx(1 / 3)
    assert rows["val/clip/text_to_video/recall_at_1"].unit == "captions"
    assert rows["val/video/text_to_video/median_rank"].better == "lower"
    assert group.details["ranks"]["video/text_to_video/ours"].tolist() == [1, 1, 1]


def test_equal_texts_are_all_right_answers():
    records = _records(("one", "one ", "three"))
    texts = {"ours": _features(all_texts(records), "ours")}
    ranks = retrieval_group(records, "val", texts, {}).details["ranks"]["video/text_to_video/ours"]
    assert ranks.tolist() == [1, 1, 1]


def test_copies_of_a_wrong_text_are_one_mistake():
    # Three videos say "one", one says "two" and lies nearer to "one": its right text is the second of two.
    one, two = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    places = [one, one, one, [0.9, 0.1, 0.0]]
    records = [
        record(f"v{i}", ROWS, summary=text, spaces={"ours": space(place, [place])})
        for i, (text, place) in enumerate(zip(("one", "one", "one", "two"), places, strict=True))
    ]
    group = retrieval_group(records, "val", {"ours": {"one": np.array(one), "two": np.array(two)}}, {})
    assert group.details["ranks"]["video/video_to_text/ours"].tolist() == [1, 1, 1, 2]
    assert group.details["num_candidates"] == {"video/text_to_video": 4, "video/video_to_text": 2}
    rows = {row.name.removeprefix("val/video/"): row for row in group.rows}
    assert rows["video_to_text/recall_at_1"].chance == pytest.approx(1 / 2)
    assert rows["video_to_text/recall_at_1"].count == 4
    # every text asks: three times with 3 right videos of 4, once with 1
    assert group.details["ranks"]["video/text_to_video/ours"].tolist() == [1, 1, 1, 1]
    assert rows["text_to_video/recall_at_1"].chance == pytest.approx((3 * 3 / 4 + 1 / 4) / 4)


def test_missing_texts_and_kinds_are_said_to_be_absent():
    bare = [record("a", ROWS), record("b", ROWS)]
    group = retrieval_group(bare, "val", {}, {"ours": "trained without text"})
    assert group.rows == []
    assert [absent.why for absent in group.absent] == [
        "trained without text",
        "fewer than 2 different summaries in the split",
        "fewer than 2 different captions in the split",
    ]


def test_blocks_of_queries_change_nothing(monkeypatch):
    random = np.random.default_rng(0)
    query, candidate, groups = random.normal(size=(9, 4)), random.normal(size=(9, 4)), np.arange(9) // 2
    whole = ranks_of(query, candidate, groups, groups)
    monkeypatch.setattr(module, "_QUERY_BLOCK", 4)
    np.testing.assert_array_equal(ranks_of(query, candidate, groups, groups), whole)
