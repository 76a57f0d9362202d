import json

import pytest

from hvlm.errors import UserError
from pipelines.store.claim import claim_source
from tests.pipelines.store.world import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "store")
    world.add("a")
    claim_source(world.store, "videos", "/videos/", False)
    world.snapshot()
    return world


def claimed(world):
    return json.loads((world.root / "source.json").read_text())


def test_the_same_source_may_come_again(world):
    claim_source(world.store, "videos", "/videos", False)
    claim_source(world.store, "videos", "file:///videos", False)
    assert claimed(world) == {"kind": "videos", "uri": "/videos"}


@pytest.mark.parametrize(
    ("kind", "uri", "key"), [("videos", "s3://b/é", "source.replace"), ("features", "/videos", "replace_source")]
)
def test_another_source_is_refused_unless_it_replaces_the_first(world, kind, uri, key):
    words = f"got {kind} of {uri}; expected videos of /videos, .* set {key}: true"
    with pytest.raises(UserError, match=words):
        claim_source(world.store, kind, uri, False)
    assert claimed(world) == {"kind": "videos", "uri": "/videos"}
    claim_source(world.store, kind, uri, True)
    assert claimed(world) == {"kind": kind, "uri": uri}
    with pytest.raises(UserError, match=f"expected {kind} of {uri}"):
        claim_source(world.store, "videos", "/videos", False)


def test_a_store_without_videos_follows_any_source(tmp_path):
    world = World(tmp_path)
    claim_source(world.store, "videos", "/wrong", False)
    claim_source(world.store, "videos", "/right", False)
    assert claimed(world)["uri"] == "/right"


def test_a_damaged_note_is_a_user_error(world):
    (world.root / "source.json").write_text("{}")
    with pytest.raises(UserError, match=r"source\.json: .* delete it"):
        claim_source(world.store, "videos", "/videos", False)
