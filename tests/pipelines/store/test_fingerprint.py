import pytest

from pipelines.store.fingerprint import canonical_json, fingerprint

IDENTITY = {"kind": "clip", "weights": "sha256:1", "sampling": {"fps": 1.0, "crop": 224}}


def test_the_order_of_keys_does_not_matter_and_every_value_does():
    assert fingerprint(IDENTITY) == fingerprint(dict(reversed(IDENTITY.items())))
    assert len(fingerprint(IDENTITY)) == 64
    changed = IDENTITY | {"sampling": {"fps": 2.0, "crop": 224}}
    assert fingerprint(changed) != fingerprint(IDENTITY)


def test_known_value():
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ValueError):
        fingerprint({"fps": float("nan")})
    with pytest.raises(TypeError):
        fingerprint({"model": object()})
