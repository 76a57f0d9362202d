"""Fingerprints: equal exactly when two extractions would give the same features."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Made once: json.dumps would make an encoder for each of 100,000 videos.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of an extraction's identity as canonical JSON.

    Args:
        identity: plain JSON values: encoder kind, weights hash, preprocessing, sampling, decoder and version, dtype.

    Raises:
        TypeError: a value that JSON cannot hold. ValueError: NaN or infinity.
    """
    return hashlib.sha256(canonical_json(identity).encode("utf-8")).hexdigest()


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return _CANONICAL.encode(value)
