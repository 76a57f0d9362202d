"""Ray tasks: every result once, the function's own exception by its type."""

import pytest

from hvlm.errors import UserError
from pipelines.ray_tasks import run_tasks


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise UserError(what="number", got=number, expected="another", do="change it")


def test_every_input_gives_one_result(ray_cluster: None) -> None:
    assert sorted(run_tasks(square, range(20), num_cpus=0.5, max_in_flight=3)) == [n * n for n in range(20)]
    assert list(run_tasks(square, [])) == []


def test_the_functions_own_error_comes_through(ray_cluster: None) -> None:
    with pytest.raises(UserError, match="number: got 1"):
        list(run_tasks(refuse, [1]))
