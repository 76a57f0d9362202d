"""The world is seeded, balanced, and made so that order decides."""

from collections import Counter
from typing import Any

import pytest

from hvlm.errors import UserError
from hvlm.synthetic.vocabulary import ACTIONS
from hvlm.synthetic.world import WorldConfig, make_activities, make_world


def test_equal_configurations_give_equal_worlds_and_another_seed_does_not() -> None:
    assert make_world(WorldConfig(num_videos=5)) == make_world(WorldConfig(num_videos=5))
    assert make_world(WorldConfig(num_videos=5)) != make_world(WorldConfig(num_videos=5, seed=1))


def test_a_larger_world_begins_with_the_smaller_one() -> None:
    assert make_world(WorldConfig(num_videos=12))[:5] == make_world(WorldConfig(num_videos=5))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("orders", [2, 3])
def test_activities_of_a_family_share_their_actions_and_differ_in_order(seed: int, orders: int) -> None:
    activities = make_activities(WorldConfig(seed=seed, orders_per_family=orders))
    assert len({activity.name for activity in activities}) == len(activities) == 5 * orders
    bags = Counter(frozenset(activity.actions) for activity in activities)
    assert len(bags) == 5
    assert set(bags.values()) == {orders}
    assert {action for activity in activities for action in activity.actions} == set(ACTIONS)


def test_subsets_are_balanced_over_activities() -> None:
    world = make_world(WorldConfig(num_videos=160))
    counts = Counter((script.subset, script.activity) for script in world)
    assert {count for (subset, _), count in counts.items() if subset == "validation"} == {4}
    assert {count for (subset, _), count in counts.items() if subset == "training"} == {12}
    assert len({script.video_id for script in world}) == 160


def test_actions_follow_each_other_inside_the_video() -> None:
    for script in make_world(WorldConfig(num_videos=60)):
        assert 20.0 <= script.duration_s <= 40.0
        edges = [0.0, *(edge for span in script.actions for edge in span.span_s), script.duration_s]
        assert edges == sorted(edges)
        assert all(end_s - start_s >= 2.0 for start_s, end_s in (span.span_s for span in script.actions))
        assert script.activity == ", then ".join(span.action.label for span in script.actions)
        acting_s = sum(end_s - start_s for start_s, end_s in (span.span_s for span in script.actions))
        assert acting_s == pytest.approx(0.8 * script.duration_s, abs=0.05)


def test_texts_name_the_colour_that_is_drawn() -> None:
    for script in make_world(WorldConfig(num_videos=20)):
        for span in script.actions:
            assert f" {span.colour} " in f" {span.caption.lower()}"
            assert f" {span.colour} " in f" {script.summary.lower()}"


def test_the_favourite_colour_is_worn_more_often_but_not_always() -> None:
    spans = [
        span
        for script in make_world(WorldConfig(num_videos=200))
        for span in script.actions
        if span.action.shape == "circle"
    ]
    share = sum(span.colour == "red" for span in spans) / len(spans)
    assert 0.8 < share < 0.95


@pytest.mark.parametrize(
    "values",
    [
        {"num_videos": 0},
        {"actions_per_activity": 9},
        {"actions_per_activity": 1},
        {"orders_per_family": 4},
        {"min_duration_s": 5.0},
        {"min_duration_s": 30.0, "max_duration_s": 20.0},
        {"validation_fraction": 1.5},
        {"idle_fraction": 0.9},
        {"min_radius": 0.4},
        {"background_contrast": -0.1},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        WorldConfig(**values)


def test_more_families_than_sets_of_actions_are_refused() -> None:
    with pytest.raises(UserError, match="num_families"):
        make_activities(WorldConfig(actions_per_activity=8, num_families=2, min_duration_s=20.0))
