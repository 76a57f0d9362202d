"""Draws one frame of a script at a time, in numpy: a background, the distractors, and the shape that acts at that time.

Coordinates: units of the picture's height, origin in the middle, x to the right, y downwards.
Shapes: H height, W width in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.synthetic.vocabulary import Shape
from hvlm.synthetic.world import Actor, Background, VideoScript

GRAIN_TILE_PX = 256
CLOUD_CELLS = 6

# A polar outline: (number of tips at radius 1, radius of the inner corners between them). An inner radius of
# cos(pi / tips) makes the regular polygon. The circle has no tips.
_OUTLINES: dict[Shape, tuple[int, float]] = {
    "square": (4, float(np.cos(np.pi / 4))),
    "triangle": (3, float(np.cos(np.pi / 3))),
    "star": (5, 0.42),
    "hexagon": (6, float(np.cos(np.pi / 6))),
    "cross": (4, 0.4),
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Where and how an actor stands at one time; `opacity` 0 = invisible."""

    x: float
    y: float
    radius: float
    angle: float
    opacity: float


class FramePainter:
    """Draws the frames of one script at one size; the background is made once.

    Args:
        script: what happens.
        width: W in pixels.
        height: H in pixels.
    """

    def __init__(self, script: VideoScript, width: int, height: int) -> None:
        self._script = script
        self._height = height
        self._x_W = ((np.arange(width) + 0.5 - width / 2) / height).astype(np.float32)
        self._y_H = ((np.arange(height) + 0.5 - height / 2) / height).astype(np.float32)
        self._background_HW3 = paint_background(script.background, width, height)
        grain_rng = np.random.default_rng([script.background.seed, 1])
        tile_shape = (GRAIN_TILE_PX + height, GRAIN_TILE_PX + width, 1)
        self._grain = (script.background.grain * grain_rng.standard_normal(tile_shape)).astype(np.float32)

    def draw(self, time_s: float) -> NDArray[np.uint8]:
        """Return the frame at `time_s` as RGB, uint8 (H, W, 3); it depends on script, size and time only."""
        height, width = self._background_HW3.shape[:2]
        # Grain is a window into one noise tile. Its place jumps with the time in ms (by prime factors), so that it
        # flickers as film does, and equal times give equal frames.
        time_ms = round(time_s * 1000)
        top, left = time_ms * 7919 % GRAIN_TILE_PX, time_ms * 104_729 % GRAIN_TILE_PX
        frame = self._background_HW3 + self._grain[top : top + height, left : left + width]
        for distractor in self._script.distractors:
            self._blend(frame, distractor, pose_at(distractor, time_s, self._script.duration_s))
        for span in self._script.actions:
            start_s, end_s = span.span_s
            if start_s <= time_s < end_s:
                self._blend(frame, span.actor, pose_at(span.actor, time_s - start_s, end_s - start_s))
        frame *= 255.0
        frame += 0.5
        drawn: NDArray[np.uint8] = np.clip(frame, 0.0, 255.0, out=frame).astype(np.uint8)
        return drawn

    def _blend(self, frame: NDArray[np.float32], actor: Actor, pose: Pose) -> None:
        """Lay the actor over its part of the frame, with edges one pixel soft."""
        reach = pose.radius + 1.0 / self._height
        columns = slice(*np.searchsorted(self._x_W, (pose.x - reach, pose.x + reach)))
        rows = slice(*np.searchsorted(self._y_H, (pose.y - reach, pose.y + reach)))
        dx, dy = self._x_W[None, columns] - pose.x, self._y_H[rows, None] - pose.y
        if dx.size == 0 or dy.size == 0 or pose.opacity == 0.0:
            return
        outline = _outline(actor.shape, np.arctan2(dy, dx) - pose.angle) * pose.radius
        coverage = np.clip((outline - np.hypot(dx, dy)) * self._height + 0.5, 0.0, 1.0) * pose.opacity
        part = frame[rows, columns]
        part += coverage[..., None] * (np.asarray(actor.rgb, dtype=np.float32) - part)


def pose_at(actor: Actor, time_s: float, span_s: float) -> Pose:
    """Return the pose of an actor `time_s` after its span of length `span_s` began."""
    x, y = actor.centre_xy
    pace = actor.speed * time_s
    turn = 2.0 * np.pi * (0.45 * pace + actor.phase)
    radius, angle, opacity = actor.radius, -np.pi / 2, 1.0
    match actor.motion:
        case "bounce":
            y = 0.5 - radius - 0.6 * abs(np.sin(turn / 2))
        case "slide":
            x = 0.5 * np.sin(turn)
        case "spin":
            angle += turn
        case "grow":
            radius *= 0.4 + 1.2 * ((0.3 * pace + actor.phase) % 1.0)
        case "blink":
            opacity = float((0.7 * pace + actor.phase) % 1.0 < 0.55)
        case "orbit":
            x, y = 0.28 * np.cos(turn), 0.28 * np.sin(turn)
        case "shake":
            x, y = x + 0.05 * np.sin(7.0 * turn), y + 0.05 * np.cos(9.0 * turn)
        case "rise":
            y = 0.5 - min(1.0, time_s / span_s)
        case "drift":
            x, y = x + 0.25 * np.sin(0.3 * turn), y + 0.25 * np.sin(0.2 * turn + 1.0)
    return Pose(float(x), float(y), float(radius), float(angle), opacity)


def paint_background(background: Background, width: int, height: int) -> NDArray[np.float32]:
    """Return the still background as float32 (H, W, 3) in about [0, 1]: a gradient plus smooth clouds."""
    x_W = (np.arange(width) + 0.5) / width - 0.5
    y_H = (np.arange(height) + 0.5) / height - 0.5
    gradient_HW = 0.5 + x_W[None] * np.cos(background.angle) + y_H[:, None] * np.sin(background.angle)
    cells = np.random.default_rng([background.seed, 0]).uniform(-0.5, 0.5, (CLOUD_CELLS, CLOUD_CELLS))
    weights_HC, weights_WC = _interpolation(height), _interpolation(width)
    mixture_HW = gradient_HW + weights_HC @ cells @ weights_WC.T
    dark, light = np.asarray(background.dark), np.asarray(background.light)
    painted: NDArray[np.float32] = (dark + mixture_HW[..., None] * (light - dark)).astype(np.float32)
    return painted


def _interpolation(length: int) -> NDArray[np.float64]:
    """Linear interpolation from CLOUD_CELLS knots to `length` pixels, (length, CLOUD_CELLS)."""
    places = np.linspace(0.0, CLOUD_CELLS - 1.0, length)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(CLOUD_CELLS)))


def _outline(shape: Shape, angle: NDArray[np.float32]) -> NDArray[np.float32] | float:
    """Radius of the unit shape's outline in each direction."""
    if shape == "circle":
        return 1.0
    points, inner = _OUTLINES[shape]
    half = np.pi / points
    # Fold every direction onto [0, half], the angle to the nearest tip; an edge runs from tip to inner corner.
    fold = np.abs((angle + half) % (2.0 * half) - half)
    edge: NDArray[np.float32] = (
        inner * np.sin(half) / (np.sin(fold) * (1.0 - inner * np.cos(half)) + inner * np.sin(half) * np.cos(fold))
    )
    return edge
