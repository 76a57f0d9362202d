"""`encoder.json` beside an encoder's generations says what its fingerprint stands for; it is written and read here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvlm.errors import UserError
from infra import storage
from pipelines.store.fingerprint import canonical_json
from pipelines.store.generation import set_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderColumn:
    """One encoder of the configuration: what its features are.

    Args:
        fingerprint: of `identity`.
        identity: what the fingerprint was made of.
        label: the model in words, for people; by default made from the identity.
    """

    fingerprint: str
    dim: int
    identity: Mapping[str, Any]
    label: str = ""

    @property
    def extractor(self) -> str:
        """The model in words: the label, else the identity's "extractor", else its kind and model."""
        if self.label:
            return self.label
        parts = (self.identity.get(name) for name in ("kind", "model", "pretrained", "layer"))
        return str(self.identity.get("extractor") or " ".join(str(part) for part in parts if part) or "unknown")


def describe_encoders(store_uri: str, encoders: Mapping[str, EncoderColumn]) -> None:
    """Write the `encoder.json` of each encoder that has none yet.

    Raises:
        UserError: the store has another encoder of the same name and the same first 8 digits of the fingerprint.
    """
    for name, column in encoders.items():
        uri = _place(store_uri, name, column.fingerprint)
        values = {
            "encoder": name,
            "fingerprint": column.fingerprint,
            "dim": column.dim,
            "extractor": column.extractor,
            "identity": dict(column.identity),
        }
        content = canonical_json(values).encode("utf-8") + b"\n"
        if not storage.exists(uri):
            storage.atomic_write(uri, content)
        elif not _is_same(storage.read_bytes(uri), content):
            raise UserError(
                what=uri,
                got="another encoder with the same first 8 digits of the fingerprint, or another dimension",
                expected=f"the encoder '{name}' with fingerprint {column.fingerprint} and dimension {column.dim}",
                do="give the encoder another name",
            )


def read_encoder(store_uri: str, name: str, fingerprint: str) -> EncoderColumn:
    """Return an encoder of a store as its `encoder.json` describes it.

    Raises:
        UserError: the file is lost or damaged.
    """
    uri = _place(store_uri, name, fingerprint)
    try:
        found = json.loads(storage.read_bytes(uri))
        return EncoderColumn(
            fingerprint=found["fingerprint"], dim=found["dim"], identity=found["identity"], label=found["extractor"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            what=uri,
            got="no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}",
            expected=f"what the encoder '{name}' with fingerprint {fingerprint} is",
            do="restore the file; if it is damaged, delete it: the next publish with this encoder writes it",
        ) from error


def _place(store_uri: str, name: str, fingerprint: str) -> str:
    return storage.join(store_uri, set_folder(name, fingerprint, 0).rpartition("/")[0], "encoder.json")


def _is_same(stored: bytes, wanted: bytes) -> bool:
    """The words for people may change (a renamed weights file): what counts is all else."""
    one, other = (json.loads(content) | {"extractor": ""} for content in (stored, wanted))
    return bool(one == other)
