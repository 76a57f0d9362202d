import polars as pl

from pipelines.store.liveness import (
    is_source,
    is_stored,
    last_fingerprint,
    live_samples,
    selected_encoders,
    superseded_samples,
)
from pipelines.store.schema import SAMPLES

EMPTY = {name: "" if kind == pl.String() else 0 for name, kind in SAMPLES.items()}


def samples(*rows):
    """Rows of (commit, gen, video_id, encoder, fingerprint, state)."""
    names = ("commit", "gen", "video_id", "encoder", "fingerprint", "state")
    return pl.DataFrame([EMPTY | dict(zip(names, row, strict=True)) for row in rows], schema=SAMPLES)


HISTORY = [
    (1, 1, "a", "clip", "A", "live"),
    (1, 1, "b", "clip", "A", "live"),
    (1, 0, "", "clip", "A", "selected"),
    (2, 2, "a", "clip", "A", "live"),
    (3, 0, "b", "", "", "tombstone"),
    (4, 2, "a", "c3d", "C", "live"),
    (4, 0, "", "c3d", "C", "selected"),
    (4, 0, "", "clip", "B", "selected"),
    (5, 5, "b", "clip", "A", "live"),
]


def live(number):
    frame = live_samples(samples(*HISTORY[:number])).sort("video_id", "gen", "encoder")
    return frame.select("video_id", "gen", "encoder").rows()


def test_each_step_of_a_history():
    assert live(0) == []
    assert live(3) == [("a", 1, "clip"), ("b", 1, "clip")]
    assert live(4) == [("a", 2, "clip"), ("b", 1, "clip")]
    assert live(5) == [("a", 2, "clip")]
    assert live(6) == [("a", 2, "c3d"), ("a", 2, "clip")]
    assert live(9) == [("a", 2, "c3d"), ("a", 2, "clip"), ("b", 5, "clip")]


def test_a_sample_of_another_encoder_from_an_older_generation_is_dead():
    rows = [(1, 1, "a", "clip", "A", "live"), (1, 1, "a", "c3d", "C", "live"), (2, 2, "a", "clip", "A", "live")]
    assert live_samples(samples(*rows)).select("gen", "encoder").rows() == [(2, "clip")]


def test_a_damaged_mark_ends_one_sample_as_a_source_and_nothing_else():
    marked = samples(*HISTORY, (6, 1, "b", "clip", "A", "damaged"), (7, 4, "", "", "", "dropped"))
    stored = [(1, "a"), (1, "b"), (2, "a"), (2, "a"), (5, "b")]
    assert marked.filter(is_stored(marked)).select("gen", "video_id").rows() == stored
    stored.remove((1, "b"))
    assert marked.filter(is_source(marked)).select("gen", "video_id").rows() == stored
    assert live_samples(marked).equals(live_samples(samples(*HISTORY)))


def test_superseded_is_a_live_sample_whose_video_has_the_newest_fingerprint():
    rows = [
        *HISTORY[:3],
        (2, 1, "a", "clip", "B", "live"),
        (2, 0, "", "clip", "B", "selected"),
        (3, 1, "a", "c3d", "C", "live"),  # never selected
    ]
    found = superseded_samples(samples(*rows)).select("video_id", "encoder", "fingerprint").rows()
    assert found == [("a", "clip", "A")]  # of b there is nothing newer
    assert superseded_samples(samples(*rows, (4, 0, "a", "", "", "tombstone"))).is_empty()
    assert superseded_samples(samples()).is_empty()


def test_selections():
    assert selected_encoders(samples()) == {}
    assert selected_encoders(samples(*HISTORY[:3])) == {"clip": "A"}
    assert selected_encoders(samples(*HISTORY)) == {"c3d": "C", "clip": "B"}
    assert last_fingerprint(samples(*HISTORY), "clip") == "B"
    assert last_fingerprint(samples(*HISTORY), "other") is None
