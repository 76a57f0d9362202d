"""The store remembers with which configuration it was extracted, so that a check needs nobody to remember it."""

import json
from dataclasses import replace

from hvlm.errors import UserError
from infra import storage
from infra.config_io import build_config, dump_config
from pipelines.extraction.config import ExtractConfig
from pipelines.store.catalog import FeatureStore

_NAME = "extract.json"


def remember_config(store: FeatureStore, config: ExtractConfig) -> None:
    """Put the configuration into the store; nothing is written where it stands already."""
    uri = storage.join(store.uri, _NAME)
    content = json.dumps(dump_config(config), indent=1, ensure_ascii=False).encode("utf-8") + b"\n"
    if not storage.exists(uri) or storage.read_bytes(uri) != content:
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
