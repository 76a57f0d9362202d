"""The planted hierarchy as files that `jobs.import_features` reads: features, annotations and text features.

    features.h5        one dataset per video, (C, D) float32; a clip is one row, which stands for one second
    annotations.json   subset, captions (one for each second) and summary of each video
    texts.npz          `texts` and `features`: what each caption and summary is as a vector

A text's vector is the sum of its tokens' one-hot vectors: the text encoder that is trained behind it has a vector of
its own for every word, and for every slot and phase of a summary.
Shapes: V videos, C clips, D width of a feature, N texts, L tokens of a text, X size of the vocabulary.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hvlm.synthetic.planted_hierarchy import (
    PlantedHierarchy,
    PlantedHierarchyConfig,
    PlantedVideos,
    directions,
    summary_tokens,
)

FEATURES_FILE, ANNOTATIONS_FILE, TEXTS_FILE = "features.h5", "annotations.json", "texts.npz"
CLIP_S = 1.0
_SPLITS = {"train": "training", "dev": "dev", "test_seen": "validation", "test_held_out": "testing"}
"""Split of the world -> subset in the annotations, so split of the store: train, dev, val and test."""


def caption_text(atom: int) -> str:
    """Return the caption that names an atom."""
    return f"atom {atom:02d}"


def summary_text(tokens: NDArray[np.int64], config: PlantedHierarchyConfig) -> str:
    """Return the sentence of a summary's two tokens."""
    first, then = (int(token) - config.num_atoms for token in tokens)
    return f"first phase {first}, then phase {then - config.num_phases}"


def text_vectors(tokens_NL: NDArray[np.int64], config: PlantedHierarchyConfig) -> NDArray[np.float32]:
    """Return (N, X) the vectors of texts of L tokens each."""
    one_hot_XX = np.eye(config.num_tokens, dtype=np.float32)
    vectors_NX: NDArray[np.float32] = one_hot_XX[tokens_NL].sum(axis=1)
    return vectors_NX


def write_planted(folder: Path, world: PlantedHierarchy) -> None:
    """Write a world; files that are there are written anew.

    Args:
        folder: is made.
        world: its splits become train, dev, val (seen directions) and test (held-out pairs).
    """
    folder.mkdir(parents=True, exist_ok=True)
    database: dict[str, Any] = {}
    with h5py.File(folder / FEATURES_FILE, "w") as file:
        for split, subset in _SPLITS.items():
            videos: PlantedVideos = getattr(world, split)
            for index, video_id in enumerate(videos.ids):
                file.create_dataset(video_id, data=videos.features_VCD[index])
                database[video_id] = {"subset": subset} | _annotation(videos, index, world.config)
    (folder / ANNOTATIONS_FILE).write_text(json.dumps({"database": database}), encoding="utf-8")
    texts, tokens = _all_texts(world.config)
    vectors_NX = np.concatenate([text_vectors(each, world.config) for each in tokens])
    np.savez(folder / TEXTS_FILE, texts=np.array(texts), features=vectors_NX)


def _annotation(videos: PlantedVideos, index: int, config: PlantedHierarchyConfig) -> dict[str, Any]:
    captions = [
        {"text": caption_text(int(atom)), "segment": [clip * CLIP_S, (clip + 1) * CLIP_S]}
        for clip, atom in enumerate(videos.captions_VC[index])
    ]
    summary = summary_text(videos.summaries_V2[index], config)
    return {"duration": config.num_clips * CLIP_S, "captions": captions, "summary": summary}


def _all_texts(config: PlantedHierarchyConfig) -> tuple[list[str], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All captions and all summaries, also of directions that no video has."""
    atoms_A1 = np.arange(config.num_atoms)[:, None]
    summaries_R2 = summary_tokens(directions(config.num_phases), config)
    texts = [caption_text(int(atom)) for atom in atoms_A1[:, 0]]
    texts += [summary_text(tokens, config) for tokens in summaries_R2]
    return texts, (atoms_A1, summaries_R2)
