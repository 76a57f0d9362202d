"""The planted world of every seed as a store: written as files and imported by the path of any other features.

Beside it stand its controls: the same world with the summaries of the training videos shuffled among them, and with the
clips of each training video in a random order.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hvlm.data.splits import SplitConfig
from hvlm.errors import UserError
from hvlm.synthetic.planted_controls import permute_summaries, shuffle_clips
from hvlm.synthetic.planted_files import ANNOTATIONS_FILE, CLIP_S, FEATURES_FILE, TEXTS_FILE, write_planted
from hvlm.synthetic.planted_hierarchy import PlantedHierarchy, PlantedHierarchyConfig, PlantedVideos, planted_hierarchy
from infra import storage
from pipelines.store.feature_files import FeatureFormat, ImportConfig
from pipelines.store.imports import import_features
from pipelines.store.publish import PublishConfig

ENCODER = "planted"
TEXT_EXTRACTOR = "planted words, one-hot"
WORLDS: Mapping[str, Callable[[PlantedVideos, int], PlantedVideos] | None] = {
    "planted": None,
    "permuted": permute_summaries,
    "shuffled": shuffle_clips,
}
"""Name -> what is done to the training videos; dev and test videos stay as they are."""
_RECORD, _STORE = "world.json", "store"


def make_world(root: Path, name: str, seed: int, config: PlantedHierarchyConfig) -> str:
    """Make the store of one world in `root / {name}-{seed} / store`, unless it is there; return its URI.

    Raises:
        UserError: another world is there.
    """
    folder = root / f"{name}-{seed}"
    store_uri, record = world_store(root, name, seed), folder / _RECORD
    world = _changed(planted_hierarchy(seed, config), name, seed)
    about = {"name": name, "seed": seed, "world": asdict(config), "sha256": _sha256(world)}
    content = json.dumps(about, sort_keys=True, indent=1)
    if record.is_file():
        if record.read_text(encoding="utf-8") != content:
            raise UserError(
                what=f"{record}", got="another world", expected="this one", do="name a new output_path, or delete it"
            )
        return store_uri
    write_planted(folder / "files", world)
    import_features(_import_config(folder / "files", store_uri, config.dim))
    storage.atomic_write(str(record), content.encode())
    return store_uri


def world_store(root: Path, name: str, seed: int) -> str:
    """Return where `make_world` puts a world's store."""
    return str(root / f"{name}-{seed}" / _STORE)


def world_sha256(store_uri: str) -> str:
    """Return the hash of all that the world of a store has: features, captions, summaries."""
    record = Path(store_uri).parent / _RECORD
    return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])


def _changed(world: PlantedHierarchy, name: str, seed: int) -> PlantedHierarchy:
    change = WORLDS[name]
    return world if change is None else replace(world, train=change(world.train, seed))


def _sha256(world: PlantedHierarchy) -> str:
    """Of all that a model sees or is asked; another generator is another world, whatever its configuration says."""
    digest = hashlib.sha256()
    for videos in (world.train, world.dev, world.test_seen, world.test_held_out):
        for array in (videos.features_VCD, videos.atoms_VC, videos.captions_VC, videos.summaries_V2):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _import_config(files: Path, store_uri: str, dim: int) -> ImportConfig:
    return ImportConfig(
        store_uri=store_uri,
        features_uri=str(files / FEATURES_FILE),
        annotations_uri=str(files / ANNOTATIONS_FILE),
        text_features_uri=str(files / TEXTS_FILE),
        format=FeatureFormat(
            encoder=ENCODER,
            extractor="planted hierarchy",
            dim=dim,
            stride_s=CLIP_S,
            clip_s=CLIP_S,
            offset_s=0.0,
            text_extractor=TEXT_EXTRACTOR,
        ),
        publish=PublishConfig(splits=SplitConfig(val_fraction=0.0, dev_fraction=0.0)),
    )
