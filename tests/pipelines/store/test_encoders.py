"""What an encoder is comes back as it was written; another one cannot take its place."""

import dataclasses

import pytest

from hvlm.errors import UserError
from pipelines.store.encoders import EncoderColumn, describe_encoders, read_encoder
from tests.pipelines.store.world import BOTH, CLIP, World


def place(root):
    return root / "features" / f"clip-{CLIP.fingerprint[:8]}" / "encoder.json"


def test_what_was_written_comes_back_and_is_not_written_again(tmp_path):
    describe_encoders(str(tmp_path), BOTH)
    found = read_encoder(str(tmp_path), "clip", CLIP.fingerprint)
    assert found == dataclasses.replace(CLIP, label="clip tiny-0")
    before = place(tmp_path).stat().st_mtime_ns
    describe_encoders(str(tmp_path), {"clip": dataclasses.replace(CLIP, label="another word for it")})
    assert place(tmp_path).stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [None, b"{", b'{"dim": 8}', b"[]"])
def test_a_lost_or_damaged_one_is_named(tmp_path, content):
    describe_encoders(str(tmp_path), BOTH)
    place(tmp_path).unlink() if content is None else place(tmp_path).write_bytes(content)
    with pytest.raises(UserError, match=rf"clip-{CLIP.fingerprint[:8]}/encoder.json.*restore"):
        read_encoder(str(tmp_path), "clip", CLIP.fingerprint)


def test_a_prefix_shared_by_two_fingerprints_is_refused(tmp_path):
    world = World(tmp_path / "store")
    world.add("a")
    world.run({"clip": CLIP})
    twin = EncoderColumn(fingerprint=CLIP.fingerprint[:8] + "0" * 56, dim=CLIP.dim, identity={"kind": "other"})
    with pytest.raises(UserError, match="first 8 digits"):
        world.run({"clip": twin})
