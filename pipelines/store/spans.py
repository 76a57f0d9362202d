"""Annotated spans as a part of what a video is.

Features that were made of the annotated spans alone are others when the spans change. In a store of such features the
content hash of a video is `{hash of the file}+{hash of the spans}`: so plan, staging, publishing, failures and renames
treat new spans as new content, and a change of words as none. The extraction that fills a store decides whether it is
such a store; its content hashes say so from then on.
"""

import hashlib
import json

import polars as pl

from hvlm.errors import UserError
from hvlm.video.spans import Spans, merge_spans
from pipelines.store.fingerprint import canonical_json

_MARK = "+"
_DIGITS = 16


def spans_of(metadata_json: str) -> Spans:
    """Return the union of the annotations', captions' and summaries' segments; a text of the whole video is no span.

    Args:
        metadata_json: as in a listing.
    """
    metadata = json.loads(metadata_json)
    items = metadata["annotations"] + metadata["captions"] + metadata.get("summaries", [])
    return merge_spans(item["segment"] for item in items if item["segment"] is not None)


def holds_spans(videos: pl.DataFrame, wanted: bool, store_uri: str) -> bool:
    """Return whether the spans are a part of what the videos of a store are; one without videos gets what is wanted.

    Args:
        videos: `store.videos()`.
        wanted: an encoder of the configuration samples spans.

    Raises:
        UserError: one does, and the store was filled without.
    """
    found = videos["content_hash"].drop_nulls()
    if found.is_empty():
        return wanted
    held = _MARK in found[0]
    if wanted and not held:
        raise UserError(
            what=f"store {store_uri}",
            got="an encoder that samples annotated spans",
            expected="encoders of whole videos: the store was filled without spans and cannot tell when they change",
            do="set another store_uri for features of spans, or sampling.kind: fps (of c3d only_spans: false)",
        )
    return held


def with_spans(file_hash: str, metadata_json: str) -> str:
    """Return the content hash of a file (its own, or one with other spans) with the spans of its metadata."""
    text = canonical_json(spans_of(metadata_json))
    return file_part(file_hash) + _MARK + hashlib.sha256(text.encode("utf-8")).hexdigest()[:_DIGITS]


def file_part(content_hash: str) -> str:
    """Return the hash of the file alone."""
    return content_hash.partition(_MARK)[0]
