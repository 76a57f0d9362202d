"""The manifest: what a reader of the store sees at a pinned version, whatever is written meanwhile."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hvlm.data.samples import SampleMeta, decode_sample
from hvlm.errors import UserError
from infra import storage
from pipelines.store.catalog import FeatureStore
from pipelines.store.encoders import EncoderColumn, read_encoder
from pipelines.store.fingerprint import canonical_json
from pipelines.store.liveness import last_fingerprint, live_samples, selected_encoders

_SHARED = ["video_id", "key", "split", "gen", "content_hash", "metadata_hash"]
_PER_ENCODER = ["shard", "offset", "size", "num_rows", "dim", "duration_s", "sample_sha256"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The live samples of a store version.

    Args:
        frame: one row per video that every encoder has: video_id, key, split, gen, content_hash, metadata_hash,
            duration_s, and for each encoder `{encoder}.shard`, `.offset`, `.size`, `.num_rows`, `.dim`,
            `.sample_sha256`; sorted by split, generation, shard and offset.
        encoders: name -> fingerprint, in the order asked for.
        num_incomplete: live videos that were left out because an encoder lacks them.
        version: version of `samples`; manifest_hash: sha256 over all that is read.
    """

    store_uri: str
    frame: pl.DataFrame
    encoders: dict[str, str]
    num_incomplete: int
    version: int
    manifest_hash: str

    def rows(self, encoder: str) -> pl.DataFrame:
        """Return one encoder's samples in the manifest's order: shared columns, shard, offset, size, num_rows, dim."""
        names = [name for name in _PER_ENCODER if name != "duration_s"]
        return self.frame.select(*_SHARED, "duration_s", *(pl.col(f"{encoder}.{name}").alias(name) for name in names))

    def encoder_column(self, encoder: str) -> EncoderColumn:
        """Return what an encoder is: fingerprint, dim, extractor and the `identity` behind the fingerprint."""
        return read_encoder(self.store_uri, encoder, self.encoders[encoder])


def open_manifest(store_uri: str, encoders: Sequence[str] | None = None, version: int | None = None) -> Manifest:
    """Return the live samples of a store, joined over encoders by key.

    Args:
        encoders: names (the fingerprint that was published last is taken) or `name-` + the first 8 digits of a
            fingerprint; None: the encoders of the newest publish.
        version: of the `samples` table; None: the newest.

    Raises:
        UserError: no store, version or encoder of that name; a compaction has left the asked fingerprint out.
    """
    store = FeatureStore.open(store_uri)
    if version is None:
        version = store.samples_version()
    samples = store.samples(version)
    chosen = _choose(store.uri, samples, encoders)
    live = live_samples(samples)
    if encoders is not None:
        _refuse_left_out(store.uri, version, live, chosen)
    frame: pl.DataFrame | None = None
    for name, fingerprint in chosen.items():
        mine = live.filter((pl.col("encoder") == name) & (pl.col("fingerprint") == fingerprint)).select(
            *_SHARED, *_PER_ENCODER
        )
        mine = mine.rename({column: f"{name}.{column}" for column in _PER_ENCODER})
        frame = mine if frame is None else frame.join(mine, on=_SHARED, how="inner")
    if frame is None:
        frame = samples.clear().select(*_SHARED, "duration_s")
    else:
        first = next(iter(chosen))
        frame = frame.sort("split", "gen", f"{first}.shard", f"{first}.offset")
        frame = frame.with_columns(duration_s=pl.col(f"{first}.duration_s")).drop(
            f"{name}.duration_s" for name in chosen
        )
    num_incomplete = live["video_id"].n_unique() - frame.height
    digest = hashlib.sha256(
        canonical_json([list(chosen.items()), frame.sort("key").rows()]).encode("utf-8")
    ).hexdigest()
    return Manifest(store.uri, frame, chosen, num_incomplete, version, digest)


def read_sample(
    store_uri: str, row: Mapping[str, Any], encoder: str | None = None
) -> tuple[npt.NDArray[np.float16], SampleMeta]:
    """Return `(features (T, D) float16, meta)` of one manifest row.

    Args:
        row: a row of `Manifest.rows(encoder)`, or of `Manifest.frame` together with `encoder`.

    Raises:
        UserError: the bytes are not those that were published, or `jobs.compact` has deleted the shard meanwhile.
    """
    prefix = f"{encoder}." if encoder else ""
    shard, offset, size, sha256 = (row[prefix + name] for name in ("shard", "offset", "size", "sample_sha256"))
    uri = storage.join(store_uri, shard)
    try:
        data = storage.read_range(uri, offset, size)
    except FileNotFoundError as error:
        if row["gen"] in FeatureStore.open(store_uri).dropped_generations():
            raise _dropped(uri, row["gen"]) from error
        raise _damaged(uri, row["key"], "no such file") from error
    except EOFError as error:
        raise _damaged(uri, row["key"], str(error)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise _damaged(uri, row["key"], f"bytes {offset} to {offset + size} with the sha256 {found}")
    features, meta = decode_sample(data)
    if meta.key != row["key"]:
        raise _damaged(uri, row["key"], f"the sample '{meta.key}' at offset {offset}")
    return features, meta


def _dropped(uri: str, gen: int) -> UserError:
    return UserError(
        what=uri,
        got=f"no such file: jobs.compact has deleted generation {gen} since this job read the store's catalog",
        expected="the shards of the version that this job began with",
        do="start it again on the newest version, and compact with a keep_versions_days that is longer than any job",
    )


def _damaged(uri: str, key: str, found: str) -> UserError:
    return UserError(
        what=uri,
        got=found,
        expected=f"the sample '{key}' as it was published",
        do="run jobs.verify to see all that is damaged, and again with repair=true to mend it",
    )


def _refuse_left_out(uri: str, version: int, live: pl.DataFrame, chosen: Mapping[str, str]) -> None:
    """A fingerprint whose last samples are dead would give an empty manifest."""
    for name, fingerprint in chosen.items():
        there = set(live.filter(pl.col("encoder") == name)["fingerprint"])
        if there and fingerprint not in there:
            raise UserError(
                what=f"encoder {name}-{fingerprint[:8]}",
                got=f"no live sample in version {version} of {uri}: left out by jobs.compact, or replaced",
                expected=f"one that it has: {', '.join(f'{name}-{print_[:8]}' for print_ in sorted(there))}",
                do="ask for that one, pin an older version, or extract with the older encoder again",
            )


def _choose(uri: str, samples: pl.DataFrame, encoders: Sequence[str] | None) -> dict[str, str]:
    if encoders is None:
        return selected_encoders(samples)
    known = (
        samples.filter(pl.col("state") == "live")
        .select("encoder", "fingerprint")
        .unique()
        .sort("encoder", "fingerprint")
    )
    chosen: dict[str, str] = {}
    for wanted in encoders:
        exact = [(name, print_) for name, print_ in known.iter_rows() if f"{name}-{print_[:8]}" == wanted]
        found = last_fingerprint(samples, wanted)
        if len(exact) == 1:
            chosen[exact[0][0]] = exact[0][1]
        elif found is not None:
            chosen[wanted] = found
        else:
            names = ", ".join(f"{name}-{print_[:8]}" for name, print_ in known.iter_rows()) or "none yet"
            raise UserError(
                what="encoders",
                got=wanted,
                expected=f"one of this store's: {names}",
                do=f"extract it into {uri} or correct the name",
            )
    return chosen
