"""`packing.json` says at which size the store's shards were cut, so that a compaction cuts them as a publish does."""

import json

from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore


def remember_packing(store: FeatureStore, target_shard_bytes: int) -> None:
    """Note the size; nothing is written where it stands already."""
    content = json.dumps({"target_shard_bytes": target_shard_bytes}).encode() + b"\n"
    if not storage.exists(_place(store)) or storage.read_bytes(_place(store)) != content:
        storage.atomic_write(_place(store), content)


def remembered_packing(store: FeatureStore) -> int | None:
    """Return the size of the last publish that wrote shards; None if there was none since stores note it.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return int(json.loads(storage.read_bytes(_place(store)))["target_shard_bytes"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            what=_place(store),
            got=f"{type(error).__name__}: {error}",
            expected='{"target_shard_bytes": ...}',
            do="delete the file, or give the job its own target_shard_bytes",
        ) from error


def _place(store: FeatureStore) -> str:
    return storage.join(store.uri, "packing.json")
