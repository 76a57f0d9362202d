"""The words of the planted world: shapes, colours, motions, the eight atomic actions, and how they are said in English.

Every shape takes part in two actions, so that one frame shows the shape and only several frames show the action.
"""

from dataclasses import dataclass
from typing import Literal

Shape = Literal["circle", "square", "triangle", "star", "hexagon", "cross"]
Motion = Literal["bounce", "slide", "spin", "grow", "blink", "orbit", "shake", "rise", "drift"]
Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Action:
    """An atomic action: what a detector has to find.

    Attributes:
        label: its name in the annotations.
        shape: what moves.
        motion: how it moves.
    """

    label: str
    shape: Shape
    motion: Motion


ACTIONS: tuple[Action, ...] = (
    Action("bouncing circle", "circle", "bounce"),
    Action("sliding circle", "circle", "slide"),
    Action("spinning square", "square", "spin"),
    Action("growing square", "square", "grow"),
    Action("blinking triangle", "triangle", "blink"),
    Action("orbiting triangle", "triangle", "orbit"),
    Action("shaking star", "star", "shake"),
    Action("rising star", "star", "rise"),
)

# RGB in [0, 1]. Well apart in hue, so that a colour word is true whatever the jitter of `world.py`.
COLOURS: dict[str, Rgb] = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.75, 0.25),
    "blue": (0.20, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.15),
    "purple": (0.65, 0.20, 0.80),
    "white": (0.95, 0.95, 0.95),
}

# What a shape wears most of the time (`favourite_colour_share`): colour hints at the action and never decides it.
FAVOURITE_COLOUR: dict[Shape, str] = {"circle": "red", "square": "blue", "triangle": "yellow", "star": "white"}

NOUNS: dict[Shape, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}

# Third person singular, to follow "a red circle".
VERBS: dict[Motion, tuple[str, ...]] = {
    "bounce": ("bounces up and down", "hops on the ground"),
    "slide": ("slides from side to side", "glides left and right"),
    "spin": ("spins on the spot", "turns around itself"),
    "grow": ("grows bigger and bigger", "swells up"),
    "blink": ("blinks on and off", "flashes"),
    "orbit": ("runs in circles", "orbits the middle"),
    "shake": ("shakes quickly", "trembles"),
    "rise": ("rises to the top", "climbs upwards"),
}

# "{0}" is what happens: "a red circle bounces up and down".
CAPTION_TEMPLATES: tuple[str, ...] = ("{0}.", "in this clip {0}.", "we see that {0}.", "{0} for a while.")

# Each part is one action in its order; `captions.summarise` puts the parts together.
SUMMARY_TEMPLATES: tuple[tuple[str, str, str], ...] = (
    ("first {0}", ", then {0}", ", and finally {0}."),
    ("at the start {0}", ", after that {0}", ", at the end {0}."),
    ("{0}", ", next {0}", ", and last of all {0}."),
)
