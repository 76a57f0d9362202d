"""Text features that come with imported features: which vector a caption or a summary has.

The file is an `.npz` of two arrays: `texts`, N strings as they stand in the annotations, and `features`, (N, X)
numbers. The store keeps them with the column that they came with, in `text/imported-{fingerprint}.npz`. New texts may
be added, but the vector of a text never changes there: other vectors are of another text encoder, so they need another
`format.text_extractor`, which makes another column. So (fingerprint, text) says which vector a training saw.
Shapes: N texts, M texts that are asked for, X width of the text features.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.errors import UserError
from infra import storage

_FORMAT = "an .npz with `texts`, N different strings, and `features`, (N, X) finite numbers"
_LISTED = 3


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Texts and, row by row, their vectors."""

    texts: tuple[str, ...]
    features_NX: NDArray[np.float32]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (M, X) the vectors of M texts.

        Raises:
            UserError: a text has none.
        """
        row = {text: i for i, text in enumerate(self.texts)}
        missing = [text for text in texts if text not in row]
        if missing:
            raise UserError(
                what="imported text features",
                got=f"none for {len(missing)} of {len(texts)} texts, e.g. {missing[:_LISTED]}",
                expected="a vector for every caption and summary, letter by letter",
                do="add them to text_features_uri and run jobs.import_features again",
            )
        return self.features_NX[[row[text] for text in texts]]


def read_text_features(uri: str) -> TextFeatures:
    """Return the content of a file.

    Raises:
        UserError: it is not there, or not of the format in this module's docstring.
    """
    try:
        with storage.reachable("text_features_uri", uri):
            data = storage.read_bytes(uri)
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise _wrong(uri, f"one array {loaded.shape}")
        with loaded as arrays:
            texts, features = arrays["texts"], arrays["features"]
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _wrong(uri, f"{type(error).__name__}: {error}") from error
    if texts.ndim != 1 or texts.dtype.kind != "U" or features.dtype.kind not in "fiu" or features.ndim != 2:
        raise _wrong(uri, f"{texts.dtype} {texts.shape} and {features.dtype} {features.shape}")
    if len(texts) != len(features) or features.shape[1] == 0 or len(set(texts.tolist())) != len(texts):
        raise _wrong(uri, f"{len(texts)} texts, {len(set(texts.tolist()))} different, for features {features.shape}")
    if not np.isfinite(features).all():
        raise _wrong(uri, "NaN or infinity")
    return TextFeatures(tuple(str(text) for text in texts), features.astype(np.float32))


def store_text_uri(store_uri: str, fingerprint: str) -> str:
    """Return where the store keeps the text features of a column."""
    return storage.join(store_uri, "text", f"imported-{fingerprint[:8]}.npz")


def add_text_features(store_uri: str, fingerprint: str, given: TextFeatures) -> int:
    """Add texts to those that the store has for a column; return how many are new.

    Raises:
        UserError: a text that is there has another vector, or the width differs.
    """
    uri = store_text_uri(store_uri, fingerprint)
    old = read_text_features(uri) if storage.exists(uri) else TextFeatures((), given.features_NX[:0])
    if old.features_NX.shape[1] != given.features_NX.shape[1]:
        raise UserError(
            what="text_features_uri",
            got=f"vectors of width {given.features_NX.shape[1]}",
            expected=f"width {old.features_NX.shape[1]}, as the store has for this column",
            do="name the other text encoder in format.text_extractor",
        )
    known = dict(zip(old.texts, old.features_NX, strict=True))
    changed = [
        text
        for text, vector in zip(given.texts, given.features_NX, strict=True)
        if text in known and not np.array_equal(known[text], vector)
    ]
    if changed:
        raise UserError(
            what="text_features_uri",
            got=f"other vectors for {len(changed)} texts that the store has, e.g. {changed[:_LISTED]}",
            expected="the same vectors, and further texts",
            do="name the other text encoder in format.text_extractor",
        )
    new = [i for i, text in enumerate(given.texts) if text not in known]
    if new:
        texts = (*old.texts, *(given.texts[i] for i in new))
        buffer = io.BytesIO()
        np.savez(buffer, texts=np.array(texts), features=np.concatenate([old.features_NX, given.features_NX[new]]))
        storage.atomic_write(uri, buffer.getvalue())
    return len(new)


def _wrong(uri: str, got: str) -> UserError:
    return UserError(what=f"text features {uri}", got=got, expected=_FORMAT, do="correct the file, or the URI")
