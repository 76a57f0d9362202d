"""Annotation files of every benchmark, made for the planted store's videos of the split val; one video is
missing, one span cannot be."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from hvlm.data.readers.egoclip import ClipRow
from hvlm.data.readers.multiple_choice import Question, QuestionKind, write_questions

GONE = "clip-999"


def write_files(folder: Path, val: list[str], train: list[str]) -> dict[str, Any]:
    """Return the configuration values that name the files."""
    rows = [ClipRow(name, (2.0, 12.0), f"someone in {name}") for name in [*val[:9], GONE]]
    segments = [row._replace(span_s=(0.0, 30.0)) for row in rows]
    asked = [(rows[:5], 1), (rows[2:7], 2), (rows[5:], 1)]
    _write(folder, "egomcq.json", write_questions(_question(five, kind) for five, kind in asked))
    _write(folder, "summarymcq.json", write_questions([_question(segments[:5], 3)]))
    epic = [
        f"n{i},{name},00:00:02.0,00:00:12.0,text {i % 4},{i % 4},[{i % 4}]" for i, name in enumerate([*val[:6], GONE])
    ]
    head = "narration_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,all_noun_classes"
    _write(folder, "epic.csv", "\n".join([head, *epic]) + "\n")
    _write(folder, "sentences.csv", "narration_id,narration\n" + "".join(f"n{i},text {i}\n" for i in range(4)))
    relevancy = np.array([[float(i % 4 == j) for j in range(4)] for i in range(7)])
    (folder / "relevancy.pkl").write_bytes(pickle.dumps(relevancy))
    _write(folder, "classes.txt", "c000 Doing one thing\nc001 Doing another\n")
    charades = [f"{name},c00{i % 2} {1.0 if i else 99.0} 9.0" for i, name in enumerate([*val, GONE])]
    _write(folder, "charades.csv", "\n".join(["id,actions", *charades]) + "\n")
    clips = [f"{name}\tc00{i % 2}\t1.0\t9.0\tdoing {i}" for i, name in enumerate(train)]
    _write(folder, "charades_train.tsv", "\n".join(["id\tcls\tt_start\tt_end\tnarration", *clips]) + "\n")
    for part, names in (("train", train), ("test", [*val, GONE])):
        lines = [f"{name}\t0.0\t28.0\t30\t{int(name[-3:]) % 2}" for name in names]
        _write(folder, f"{part}.csv", "\n".join(["video_uid\tclip_start\tclip_end\tfps\tlabel", *lines]) + "\n")
        actions = [_action(name, i) for name in names for i in range(5)]
        _write(folder, f"lta_{part}.json", json.dumps({"clips": actions}))
    uri = {path.name: str(path) for path in folder.iterdir()}
    return {
        "ego_mcq_uri": uri["egomcq.json"],
        "summary_mcq_uri": uri["summarymcq.json"],
        "epic": {
            "clips_uri": uri["epic.csv"],
            "sentences_uri": uri["sentences.csv"],
            "relevancy_uri": uri["relevancy.pkl"],
        },
        "charades": {
            "classes_uri": uri["classes.txt"],
            "videos_uri": uri["charades.csv"],
            "train_clips_uri": uri["charades_train.tsv"],
            "head": {"num_steps": 5},
        },
        "anticipation": {
            "train_uri": uri["lta_train.json"],
            "test_uri": uri["lta_test.json"],
            "num_seen": 2,
            "num_future": 2,
            "head": {"num_steps": 5},
        },
        "long_video": {"train_uri": uri["train.csv"], "test_uri": uri["test.csv"]},
    }


def _action(name: str, index: int) -> dict[str, Any]:
    return {
        "video_uid": name,
        "clip_uid": name,
        "action_idx": index,
        "clip_parent_start_sec": 0.0,
        "action_clip_start_sec": 4.0 * index,
        "action_clip_end_sec": 4.0 * index + 3,
        "verb_label": index % 3,
        "noun_label": index % 2,
    }


def _question(five: list[ClipRow], kind: int) -> Question:
    return Question(five[1], tuple(five), 1, QuestionKind(kind))


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
