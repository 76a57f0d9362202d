import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvlm.data.keys import video_id_of, video_key

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(IDS)
def test_keys_are_safe_and_reversible(video_id):
    key = video_key(video_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
    assert video_id_of(key) == video_id


@given(IDS, IDS)
def test_two_ids_never_share_a_key(one, other):
    assert (video_key(one) == video_key(other)) == (one == other)


def test_safe_ids_stay_as_they_are():
    assert video_key("v_-JzrTO5oJc4") == "v_-JzrTO5oJc4"


@pytest.mark.parametrize(
    ("video_id", "key"),
    [("a b.mp4", "x--a_20b_2emp4"), ("x--a", "x--x--a"), ("cam1/0001", "x--cam1_2f0001"), ("é", "x--_c3_a9")],
)
def test_other_ids_are_escaped(video_id, key):
    assert video_key(video_id) == key


@pytest.mark.parametrize("key", ["", "a.b", "x--", "x--_2", "x--_2E", "x--a", "x--_61", "x--_ff", "x--_20é"])
def test_what_video_key_never_makes_is_refused(key):
    with pytest.raises(ValueError):
        video_id_of(key)


def test_empty_and_broken_names_are_refused():
    with pytest.raises(ValueError, match="empty"):
        video_key("")
    with pytest.raises(ValueError):
        video_key("broken\udcff")
