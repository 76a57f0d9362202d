"""The base of every configuration dataclass, and the range check that their `__post_init__` uses.

A configuration stands beside the code it configures:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class SamplingConfig(Config):
        fps: float = 1.0

        def __post_init__(self) -> None:
            require(self.fps > 0, what="sampling.fps", got=self.fps, expected="above 0", do="set e.g. fps: 1.0")
"""

from typing import Any, ClassVar

from hvlm.errors import UserError


class Config:
    """Marks a dataclass as configuration; when it is loaded from YAML, unknown keys, empty strings, infinity and NaN
    are refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False, "str_min_length": 1}


def require(condition: bool, *, what: str, got: object, expected: str, do: str) -> None:
    """Raise `UserError` unless `condition` holds."""
    if not condition:
        raise UserError(what=what, got=got, expected=expected, do=do)
