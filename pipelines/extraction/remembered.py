"""The store remembers with which configuration it was extracted, so that a check needs nobody to remember it.

Whoever reads it may stand in another folder and on another cluster: relative paths are made absolute, and the address
of the cluster is left out (RAY_ADDRESS names the reader's own).
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hvlm.errors import UserError
from infra import storage
from infra.config_io import build_config, dump_config
from pipelines.extraction.config import ExtractConfig
from pipelines.store.catalog import FeatureStore

_NAME = "extract.json"


def remember_config(store: FeatureStore, config: ExtractConfig) -> None:
    """Put the configuration into the store; nothing is written where it stands already.

    Call it when the first features are there: an extraction that fails before is none to be repeated.
    """
    uri = storage.join(store.uri, _NAME)
    content = json.dumps(_anywhere(dump_config(config)), indent=1, ensure_ascii=False).encode("utf-8") + b"\n"
    if not storage.exists(uri) or storage.read_bytes(uri) != content:
        store.check_lease()
        storage.atomic_write(uri, content)


def remembered_config(store: FeatureStore) -> ExtractConfig:
    """Return the configuration of the store's last extraction.

    Raises:
        UserError: there is none, or it is of another version of the program.
    """
    uri = storage.join(store.uri, _NAME)
    try:
        values = json.loads(storage.read_bytes(uri))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            what=uri,
            got="no such file" if isinstance(error, FileNotFoundError) else str(error),
            expected="the configuration of the store's last extraction",
            do="set extract_config to the YAML that the store was extracted with",
        ) from error
    return replace(build_config(ExtractConfig, values, origin=uri), store_uri=store.uri)


def _anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Return a dumped configuration that means the same wherever it is read."""
    source, decode = values["source"], values["decode"]
    cache = decode["cache"] and decode["cache"] | {
        "uri": decode["cache"]["uri"] and storage.absolute_uri(decode["cache"]["uri"])
    }
    places = {name: source[name] and storage.absolute_uri(source[name]) for name in ("uri", "annotations_uri")}
    return values | {
        "store_uri": storage.absolute_uri(values["store_uri"]),
        "source": source | places,
        "decode": decode | {"cache": cache},
        "encoders": {name: _with_absolute_files(encoder) for name, encoder in values["encoders"].items()},
        "cluster": values["cluster"] | {"address": None},
    }


def _with_absolute_files(encoder: dict[str, Any]) -> dict[str, Any]:
    """A model or its weights are a name or a file: what is a file here gets its absolute path."""
    files = {name: value for name, value in encoder.items() if isinstance(value, str) and Path(value).is_file()}
    return encoder | {name: os.path.abspath(value) for name, value in files.items()}
