"""The annotation file is ActivityNet's layout, complete, and our reader takes it without a complaint."""

import json

from hvlm.data.activitynet import read_annotations
from hvlm.synthetic.annotations import annotations_json
from hvlm.synthetic.vocabulary import ACTIONS
from hvlm.synthetic.world import WorldConfig, make_world

SCRIPTS = make_world(WorldConfig(num_videos=12))
DURATIONS_S = [script.duration_s for script in SCRIPTS]
TEXT = annotations_json(SCRIPTS, DURATIONS_S, [(128, 96)] * 12)


def test_our_reader_reads_it_whole() -> None:
    annotations = read_annotations(TEXT)
    assert annotations.problems == []
    assert set(annotations.labels) <= {action.label for action in ACTIONS}
    for script in SCRIPTS:
        found = annotations.videos[script.video_id]
        assert (found.subset, found.duration_s, found.summary) == (script.subset, script.duration_s, script.summary)
        assert found.annotations == [
            {"label": span.action.label, "segment": list(span.span_s)} for span in script.actions
        ]
        assert found.captions == [{"text": span.caption, "segment": list(span.span_s)} for span in script.actions]


def test_the_activity_stands_beside_the_actions() -> None:
    content = json.loads(TEXT)
    assert content["activities"] == sorted({script.activity for script in SCRIPTS})
    assert {video_id: entry["activity"] for video_id, entry in content["database"].items()} == {
        script.video_id: script.activity for script in SCRIPTS
    }


def test_the_taxonomy_leads_from_every_label_to_the_root() -> None:
    nodes = {node["nodeId"]: node for node in json.loads(TEXT)["taxonomy"]}
    by_name = {node["nodeName"]: node for node in nodes.values()}
    for action in ACTIONS:
        shape = nodes[by_name[action.label]["parentId"]]
        assert shape["nodeName"] == by_name[action.label]["parentName"] == action.shape
        assert nodes[shape["parentId"]]["nodeName"] == "Root"


def test_a_segment_never_ends_after_the_rendered_duration() -> None:
    script = SCRIPTS[0]
    end_s = script.actions[-1].span_s[1]
    entry = json.loads(annotations_json([script], [end_s - 0.01], [(128, 96)]))["database"][script.video_id]
    assert entry["annotations"][-1]["segment"][1] == end_s - 0.01


def test_the_order_of_the_arguments_does_not_matter() -> None:
    assert annotations_json(SCRIPTS[::-1], DURATIONS_S[::-1], [(128, 96)] * 12) == TEXT
