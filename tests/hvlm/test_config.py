"""The base of the configuration dataclasses."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from hvlm.config import Config, require
from hvlm.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class PointConfig(Config):
    x: int = 0

    def __post_init__(self) -> None:
        require(self.x >= 0, what="point.x", got=self.x, expected="0 or more", do="raise it")


def test_require_raises_only_when_the_condition_fails():
    assert PointConfig(x=0).x == 0
    with pytest.raises(UserError, match=r"point\.x: got -1; expected 0 or more; raise it"):
        PointConfig(x=-1)


def test_the_base_keeps_slots():
    """Without `__slots__ = ()` on the base, a misspelled attribute would land in a __dict__."""
    assert not hasattr(PointConfig(), "__dict__")
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        PointConfig().y = 1


def test_the_base_makes_pydantic_refuse_unknown_keys():
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError, match="unexpected"):
        TypeAdapter(PointConfig).validate_python({"x": 1, "z": 2})
