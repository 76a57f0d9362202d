"""ActivityNet Captions files, turned into the annotations that `activitynet.py` reads.

{"v_QOlSCBRmfWY": {"duration": 82.7, "timestamps": [[0.8, 19.9], [17.4, 60.8]], "sentences": ["...", "..."]}}
"""

import json
from typing import Any

from hvlm.data.activitynet import Annotations, read_annotations
from hvlm.data.readers.parsing import read_json_mapping, refuse


def read_activitynet_captions(
    text: str, subset: str | None = None, origin: str = "captions.json", pass_id: str | None = None
) -> Annotations:
    """Return one annotation for each video: its sentences as captions.

    Their paragraph is no summary of its own: a training makes it of the captions, and knows that it did. Ids with and
    without `v_` meet as in the official files; `reconcile` lists the videos that one side lacks.

    Args:
        text: the file.
        subset: which part of the data the file is, "training" or "validation"; the format does not say.
        origin: names the file in errors.
        pass_id: names the annotators of the file: val_1 and val_2 tell of the same videos.

    Raises:
        UserError: not JSON, or an entry of another shape; names the video.
    """
    database = {
        video_id: _entry(entry, f"{origin}, video '{video_id}'", subset, pass_id)
        for video_id, entry in read_json_mapping(text, origin).items()
    }
    # A second pass through JSON: spans are then judged and listed by the one rule of the other reader. Files hold 6 MB.
    return read_annotations(json.dumps({"database": database}), origin)


def _entry(entry: Any, where: str, subset: str | None, pass_id: str | None) -> dict[str, Any]:
    if not isinstance(entry, dict):
        refuse(where, type(entry).__name__, "a mapping with duration, timestamps and sentences")
    spans, sentences = (entry.get(name) for name in ("timestamps", "sentences"))
    if not isinstance(spans, list) or not isinstance(sentences, list) or len(spans) != len(sentences):
        counts = [len(values) if isinstance(values, list) else values for values in (spans, sentences)]
        refuse(where, f"timestamps: {counts[0]}, sentences: {counts[1]}", "two lists of the same length")
    if not all(isinstance(sentence, str) and sentence.strip() for sentence in sentences):
        refuse(f"{where}, sentences", sentences, "texts")
    if not all(isinstance(span, list) for span in spans):
        refuse(f"{where}, timestamps", spans, "lists [start_s, end_s]")
    return {
        "subset": subset,
        "duration": entry.get("duration"),
        "captions": [
            {"text": sentence.strip(), "segment": span, "pass": pass_id}
            for sentence, span in zip(sentences, spans, strict=True)
        ],
    }
