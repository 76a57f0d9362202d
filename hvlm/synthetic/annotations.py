"""ActivityNet-style annotations of a planted world.

    {"version": "...", "taxonomy": [{"nodeId", "nodeName", "parentId", "parentName"}, ...], "activities": [name, ...],
     "database": {"planted-0000": {
         "subset": "training", "duration": 21.58, "resolution": "128x96", "activity": "rising star, then ...",
         "annotations": [{"label": "rising star", "segment": [1.21, 7.21]}, ...],
         "captions": [{"text": "A white star climbs upwards.", "segment": [1.21, 7.21]}, ...],
         "summary": "First a white star climbs upwards, then ..."}}}

A label names an atomic action and has a segment: it is what localisation finds. "activity" names the ordered
composition of the whole video: it is what video classification finds. It has no segment and stands beside
"annotations", so that detection metrics do not see it.
"""

import json
from collections.abc import Sequence
from typing import Any

from hvlm.synthetic.vocabulary import ACTIONS
from hvlm.synthetic.world import VideoScript

VERSION = "planted world 1"


def annotations_json(
    scripts: Sequence[VideoScript], durations_s: Sequence[float], resolutions: Sequence[tuple[int, int]]
) -> str:
    """Return the annotation file's text: sorted by video id, equal for equal worlds.

    Args:
        scripts: the videos.
        durations_s: what was rendered of each, in seconds: a whole number of frames, so not exactly the script's.
        resolutions: (width, height) in pixels of each.
    """
    database = {
        script.video_id: _entry(script, duration_s, resolution)
        for script, duration_s, resolution in sorted(
            zip(scripts, durations_s, resolutions, strict=True), key=lambda item: item[0].video_id
        )
    }
    content = {
        "version": VERSION,
        "taxonomy": _taxonomy(),
        "activities": sorted({script.activity for script in scripts}),
        "database": database,
    }
    return json.dumps(content, indent=1) + "\n"


def _entry(script: VideoScript, duration_s: float, resolution: tuple[int, int]) -> dict[str, Any]:
    def segment(span_s: tuple[float, float]) -> list[float]:
        return [span_s[0], min(span_s[1], duration_s)]

    return {
        "subset": script.subset,
        "duration": duration_s,
        "resolution": f"{resolution[0]}x{resolution[1]}",
        "activity": script.activity,
        "annotations": [{"label": span.action.label, "segment": segment(span.span_s)} for span in script.actions],
        "captions": [{"text": span.caption, "segment": segment(span.span_s)} for span in script.actions],
        "summary": script.summary,
    }


def _taxonomy() -> list[dict[str, Any]]:
    """Three levels in ActivityNet's layout: root, shape, action."""
    nodes: list[dict[str, Any]] = [{"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}]
    shape_ids: dict[str, int] = {}
    for action in ACTIONS:
        if action.shape not in shape_ids:
            shape_ids[action.shape] = len(nodes)
            nodes.append({"nodeId": len(nodes), "nodeName": action.shape, "parentId": 0, "parentName": "Root"})
    for action in ACTIONS:
        nodes.append(
            {
                "nodeId": len(nodes),
                "nodeName": action.label,
                "parentId": shape_ids[action.shape],
                "parentName": action.shape,
            }
        )
    return nodes
