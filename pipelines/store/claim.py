"""A store follows one source: `source.json` beside `store.json` says which.

A snapshot of another source would tombstone every video of the first. So another source is refused unless the config
says that it takes the first one's place.
"""

import json
from typing import Literal

from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore

_REPLACE_KEY = {"videos": "source.replace", "features": "replace_source"}


def check_source(store: FeatureStore, kind: Literal["videos", "features"], uri: str, replace: bool) -> bool:
    """Return whether the store's note names this source already.

    Args:
        kind: what the source holds: videos to extract, or features to import.
        uri: the source, as in the config.
        replace: let this source take the place of the one that the store has followed.

    Raises:
        UserError: the store holds the videos of another source and `replace` is False.
    """
    wanted, found = _wanted(kind, uri), _read(_place(store))
    # A store without videos has nothing to lose, whatever an earlier run noted before it was stopped.
    if found is not None and found != wanted and not replace and store.videos(["video_id"]).height:
        raise UserError(
            what=f"source of the store {store.uri}",
            got=f"{kind} of {wanted['uri']}",
            expected=f"{found['kind']} of {found['uri']}, which it was made from (its videos would count as deleted)",
            do=f"use another store_uri, or set {_REPLACE_KEY[kind]}: true if this source takes the old one's place",
        )
    return found == wanted


def claim_source(store: FeatureStore, kind: Literal["videos", "features"], uri: str, replace: bool) -> None:
    """Note the source that a store follows; call it after the source was listed and before the snapshot is committed.

    Args and errors as `check_source`.
    """
    if not check_source(store, kind, uri, replace):
        text = json.dumps(_wanted(kind, uri), indent=1, ensure_ascii=False)
        storage.atomic_write(_place(store), text.encode("utf-8") + b"\n")


def _place(store: FeatureStore) -> str:
    return storage.join(store.uri, "source.json")


def _wanted(kind: str, uri: str) -> dict[str, str]:
    return {"kind": kind, "uri": storage.absolute_uri(uri)}


def _read(uri: str) -> dict[str, str] | None:
    try:
        values = json.loads(storage.read_bytes(uri))
        return {name: str(values[name]) for name in ("kind", "uri")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        expected, do = '{"kind": ..., "uri": ...}', "the store is damaged: restore the file, or delete it"
        raise UserError(what=uri, got=str(error), expected=expected, do=do) from error
