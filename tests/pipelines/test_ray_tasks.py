"""Ray tasks: every result once, the function's own exception by its type."""

from collections.abc import Iterator

import pytest

from hvlm.errors import UserError
from infra import retries
from pipelines.ray_tasks import own_errors, run_tasks


def square(number: int) -> int:
    return number * number


def struggle(number: int) -> int:
    retries.add(number)
    return number


def refuse(number: int) -> int:
    raise UserError(what="number", got=number, expected="another", do="change it")


def test_every_input_gives_one_result(ray_cluster: None) -> None:
    assert sorted(run_tasks(square, range(20), num_cpus=0.5, max_in_flight=3)) == [n * n for n in range(20)]
    assert list(run_tasks(square, [])) == []


def test_retries_in_the_workers_are_counted(ray_cluster: None) -> None:
    retries.take()
    assert sorted(run_tasks(struggle, range(5))) == [0, 1, 2, 3, 4]
    assert retries.take() == 10


def test_the_functions_own_error_comes_through(ray_cluster: None) -> None:
    with pytest.raises(UserError, match="number: got 1"):
        list(run_tasks(refuse, [1]))


def test_an_error_of_ours_is_found_behind_others() -> None:
    def failing() -> Iterator[int]:
        yield 1
        try:
            refuse(2)
        except UserError as error:
            raise RuntimeError("wrapped") from error

    results = own_errors(failing())
    assert next(results) == 1
    with pytest.raises(UserError, match="number: got 2"):
        next(results)
    with pytest.raises(ZeroDivisionError):
        list(own_errors(1 // n for n in (0,)))
