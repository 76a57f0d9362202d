"""A frame is a pure function of script and time, and shows what the script says where it says it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hvlm.synthetic.drawing import FramePainter, pose_at
from hvlm.synthetic.vocabulary import Motion, Shape
from hvlm.synthetic.world import ActionSpan, Actor, Background, VideoScript, WorldConfig, make_world

ACTOR = Actor("circle", "spin", (1.0, 0.0, 0.0), 0.25, (0.0, 0.0), 1.0, 0.0)


def _script(actor: Actor) -> VideoScript:
    """A black video of 10 s in which one actor acts from 2 s to 6 s."""
    script = make_world(WorldConfig(num_videos=1, max_distractors=0))[0]
    span = ActionSpan(script.actions[0].action, (2.0, 6.0), "red", actor, "")
    black = Background((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0, 0, 0.0)
    return replace(script, duration_s=10.0, actions=(span,), background=black)


def _red_area(actor: Actor, time_s: float = 3.0) -> float:
    """Red pixels in units of the picture's height squared."""
    return float((FramePainter(_script(actor), 100, 100).draw(time_s)[..., 0] / 255.0).sum() / 100**2)


def test_frames_are_upright_rgb_of_the_size_and_equal_for_equal_times() -> None:
    script = make_world(WorldConfig(num_videos=1))[0]
    painter = FramePainter(script, 64, 48)
    frame = painter.draw(5.0)
    assert frame.shape == (48, 64, 3)
    assert frame.dtype == np.uint8
    painter.draw(6.0)
    assert np.array_equal(frame, painter.draw(5.0))
    assert np.array_equal(frame, FramePainter(script, 64, 48).draw(5.0))


def test_an_actor_is_seen_during_its_half_open_span_only() -> None:
    painter = FramePainter(_script(ACTOR), 32, 32)
    assert [bool(painter.draw(time_s).any()) for time_s in (0.0, 1.99, 2.0, 5.99, 6.0, 9.0)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("shape", "area_of_unit_radius"),
    [
        ("circle", np.pi),
        ("square", 2.0),
        ("triangle", 3 * np.sqrt(3) / 4),
        ("hexagon", 3 * np.sqrt(3) / 2),
        ("star", 5 * 0.42 * np.sin(np.pi / 5)),
    ],
)
def test_shapes_have_the_area_of_their_geometry(shape: Shape, area_of_unit_radius: float) -> None:
    assert _red_area(replace(ACTOR, shape=shape)) == pytest.approx(area_of_unit_radius * 0.25**2, rel=0.03)


def test_the_colour_is_the_actors() -> None:
    frame = FramePainter(_script(replace(ACTOR, rgb=(0.2, 0.4, 0.6))), 100, 100).draw(3.0)
    assert frame[50, 50].tolist() == [51, 102, 153]


def test_a_shape_that_leaves_the_picture_is_cut() -> None:
    assert _red_area(replace(ACTOR, centre_xy=(0.5, 0.0))) == pytest.approx(np.pi / 2 * 0.25**2, rel=0.05)
    assert _red_area(replace(ACTOR, centre_xy=(3.0, 0.0))) == 0.0


def _poses(motion: Motion) -> list[tuple[float, float, float, float, float]]:
    times_s = np.arange(0.0, 6.0, 0.1)
    poses = [pose_at(replace(ACTOR, motion=motion), float(time_s), 6.0) for time_s in times_s]
    return [(pose.x, pose.y, pose.radius, pose.angle, pose.opacity) for pose in poses]


@pytest.mark.parametrize(
    ("motion", "moving"),
    [
        ("bounce", "y"),
        ("slide", "x"),
        ("spin", "angle"),
        ("grow", "radius"),
        ("blink", "opacity"),
        ("orbit", "xy"),
        ("shake", "xy"),
        ("rise", "y"),
        ("drift", "xy"),
    ],
)
def test_each_motion_moves_what_its_name_says_and_nothing_else(motion: Motion, moving: str) -> None:
    x, y, radius, angle, opacity = (len(set(values)) > 1 for values in zip(*_poses(motion), strict=True))
    found = {
        name
        for name, moves in (("x", x), ("y", y), ("radius", radius), ("angle", angle), ("opacity", opacity))
        if moves
    }
    assert found == ({"x", "y"} if moving == "xy" else {moving})


def test_rising_goes_up_once_and_growing_grows() -> None:
    heights = [pose[1] for pose in _poses("rise")]
    assert heights == sorted(heights, reverse=True)
    radii = [pose[2] for pose in _poses("grow")]
    assert sum(later > earlier for earlier, later in pairwise(radii)) > 0.9 * len(radii)
