"""Text features of a data set: made once at the start, kept in the store, read by every worker.

A video's texts are its summary, else the summaries of its parts, else its captions, else every template with each of
its labels. They are encoded by the text tower of the CLIP model whose image tower made a column of the store, or looked
up among the text features that were imported with a column; another model's text would lie in another space, so that is
an error. The file is named after the column's fingerprint and a hash of all texts, so equal inputs find it again and
other ones never do.

A text tower that is trained reads the texts anew in every step: then the table holds their tokens.

Shapes: N texts, X width of the text features, or number of tokens.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.data.collate import TextRow
from hvlm.data.samples import SampleMeta
from hvlm.encoders.clip import describe_clip
from hvlm.encoders.config import ClipConfig
from hvlm.encoders.text import load_text_encoder, load_tokenizer
from hvlm.errors import UserError
from infra import storage
from pipelines.store.fingerprint import canonical_json
from pipelines.store.manifest import Manifest, read_sample
from pipelines.store.text_features import read_text_features, store_text_uri
from pipelines.training.config import WITHOUT_TEXT, ImportedTextConfig, TextConfig

EncodeText = Callable[[Sequence[str]], NDArray[np.float32] | NDArray[np.int32]]

# What a text tower shares with its image tower. Sampling, pixels and precision may differ.
_TOWER_KEYS = ("kind", "model", "weights")


@dataclass(frozen=True, slots=True)
class TextTable:
    """The texts of all videos of a data set.

    Args:
        features_NX: float32, one row per distinct text, not normalised; or int32 token ids.
        group_N: equal for texts that mean the same thing (the same caption; templates of the same label).
        texts_of: key of a video -> its texts' rows; empty for a video without text.
    """

    features_NX: NDArray[Any]
    group_N: NDArray[np.int64]
    texts_of: dict[str, NDArray[np.int64]]

    @property
    def dim(self) -> int:
        """Width of the text features."""
        return int(self.features_NX.shape[1])

    def row(self, key: str, choice: int) -> TextRow:
        """Return one text of a video, number `choice` modulo how many it has; group -1 and zeros where it has none."""
        ids = self.texts_of[key]
        if len(ids) == 0:
            return TextRow(np.zeros(self.dim, np.float32), -1)
        chosen = int(ids[choice % len(ids)])
        return TextRow(self.features_NX[chosen], int(self.group_N[chosen]))


def texts_of_video(meta: SampleMeta, templates: Sequence[str]) -> list[tuple[str, str]]:
    """Return a video's texts with the name of each one's group."""
    if meta.summary:
        return [(meta.summary, meta.summary)]
    for items in (meta.summaries, meta.captions):
        if texts := list(dict.fromkeys(item["text"] for item in items if item["text"])):
            return [(text, text) for text in texts]
    labels = dict.fromkeys(item["label"] for item in meta.annotations)
    return [(template.format(label=label), f"label: {label}") for label in labels for template in templates]


def read_metas(manifest: Manifest, splits: Iterable[str]) -> list[SampleMeta]:
    """Return the metadata of the samples of some splits, from the first encoder's shards, in the manifest's order."""
    wanted = set(splits)
    rows = manifest.rows(next(iter(manifest.encoders))).iter_rows(named=True)
    return [read_sample(manifest.store_uri, row)[1] for row in rows if row["split"] in wanted]


def make_text_table(
    manifest: Manifest,
    config: TextConfig,
    texts: Mapping[str, Sequence[tuple[str, str]]],
    encode: EncodeText | None,
    *,
    tokens: bool = False,
) -> str:
    """Make sure that the store has the text features of these videos; return their URI.

    Args:
        manifest: the pinned data.
        config: the encoder.
        texts: key of a video -> its texts, each with the name of its group.
        encode: replaces the text tower (tests); None loads it when the file is not there.
        tokens: keep the tokens of the tower instead of its features.

    Raises:
        UserError: no text tower of this store, or no video has a text.
    """
    content, fingerprint, load = _token_source(manifest, config) if tokens else _text_source(manifest, config, encode)
    pairs = sorted({pair for each in texts.values() for pair in each})
    if not pairs:
        raise UserError(
            what="model.alignment.enabled",
            got=f"true, but none of the {len(texts)} videos has a summary, caption or label",
            expected="texts to align with",
            do=f"add annotations to the source, or {WITHOUT_TEXT}",
        )
    mapping = sorted((key, list(each)) for key, each in texts.items())
    digest = hashlib.sha256(canonical_json([content, mapping]).encode()).hexdigest()
    uri = storage.join(manifest.store_uri, "text", f"{fingerprint[:8]}-{digest[:32]}.npz")
    if not storage.exists(uri):
        storage.atomic_write(uri, _table_bytes(pairs, mapping, load()))
    return uri


def read_text_table(uri: str) -> TextTable:
    """Return the text features at a URI of `make_text_table`."""
    with np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False) as arrays:
        features, group = arrays["features"], arrays["group"]
        ids = np.split(arrays["ids"], arrays["ends"][:-1])
        keys = [str(key) for key in arrays["keys"]]
    return TextTable(features, group, dict(zip(keys, ids, strict=True)))


def _text_source(
    manifest: Manifest, config: TextConfig, encode: EncodeText | None
) -> tuple[int, str, Callable[[], EncodeText]]:
    """The seed of the text tower's weights, the fingerprint of its column, and what loads it."""
    if isinstance(config.encoder, ImportedTextConfig):
        fingerprint = imported_text_of(manifest, config.encoder)
        uri = store_text_uri(manifest.store_uri, fingerprint)
        return 0, fingerprint, lambda: encode or read_text_features(uri).encode
    clip, fingerprint = text_encoder_of(manifest, config)
    return clip.seed, fingerprint, lambda: encode or load_text_encoder(clip, _device()).encode_text


def _token_source(manifest: Manifest, config: TextConfig) -> tuple[str, str, Callable[[], EncodeText]]:
    """What the table holds, the fingerprint of the tower's column, and what loads its tokenizer."""
    clip, fingerprint = text_encoder_of(manifest, config)
    return "tokens", fingerprint, lambda: load_tokenizer(clip).tokens


def imported_text_of(manifest: Manifest, encoder: ImportedTextConfig) -> str:
    """Return the fingerprint of the column with which text features of this extractor were imported.

    Raises:
        UserError: no column came with them.
    """
    found = {name: manifest.encoder_column(name).identity.get("text_extractor") for name in manifest.encoders}
    for name, extractor in found.items():
        if extractor == encoder.extractor:
            return manifest.encoders[name]
    there = "; ".join(f"{name}: {extractor}" for name, extractor in found.items() if extractor)
    raise UserError(
        what="text.encoder",
        got=f"imported text features of '{encoder.extractor}'",
        expected=f"those that this store has ({there or 'no column came with text features'})",
        do="copy format.text_extractor of the import, or import with these text features",
    )


def text_encoder_of(manifest: Manifest, config: TextConfig) -> tuple[ClipConfig, str]:
    """Return the CLIP model of the texts and the fingerprint of the store's column that its image tower made.

    Raises:
        UserError: no column of the store was made by this model with these weights, or the texts are imported ones.
    """
    if not isinstance(config.encoder, ClipConfig):
        raise UserError(
            what="text.encoder",
            got="none" if config.encoder is None else "imported text features, which cannot encode new texts",
            expected="a CLIP encoder",
            do="copy it from the extraction's config",
        )
    mine = _tower(describe_clip(config.encoder).identity)
    towers = {name: _find_tower(manifest.encoder_column(name).identity) for name in manifest.encoders}
    for name, tower in towers.items():
        if tower == mine:
            return config.encoder, manifest.encoders[name]
    found = "; ".join(f"{name}: {tower}" for name, tower in towers.items() if tower) or "no CLIP column"
    raise UserError(
        what="text.encoder",
        got=f"{config.encoder.model}, {config.encoder.pretrained} ({mine})",
        expected=f"the model and weights that made this store's features ({found})",
        do="copy the encoder from the extraction's config, or extract with this one",
    )


def _find_tower(identity: Any) -> dict[str, Any] | None:
    """Return what identifies the CLIP model inside a column's identity, at whatever depth the extraction put it."""
    if not isinstance(identity, dict):
        return None
    if identity.get("kind") == "clip":
        return _tower(identity)
    return next((found for value in identity.values() if (found := _find_tower(value)) is not None), None)


def _tower(identity: dict[str, Any]) -> dict[str, Any]:
    return {key: identity.get(key) for key in _TOWER_KEYS}


def _table_bytes(
    pairs: Sequence[tuple[str, str]], mapping: Sequence[tuple[str, Sequence[tuple[str, str]]]], encode: EncodeText
) -> bytes:
    number = {pair: i for i, pair in enumerate(pairs)}
    group_number = {name: i for i, name in enumerate(sorted({group for _, group in pairs}))}
    ids = [np.array([number[pair] for pair in texts], np.int64) for _, texts in mapping]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        features=encode([text for text, _ in pairs]),
        group=np.array([group_number[group] for _, group in pairs], np.int64),
        keys=np.array([key for key, _ in mapping]),
        ids=np.concatenate(ids),
        ends=np.cumsum([len(each) for each in ids]),
    )
    return buffer.getvalue()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
