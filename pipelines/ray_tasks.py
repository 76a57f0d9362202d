"""Runs a function over many inputs as Ray tasks, with a bounded number in flight."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, TypeVar

import ray

from hvlm.errors import JobError, UserError
from infra import retries

T = TypeVar("T")
R = TypeVar("R")


def run_tasks(
    function: Callable[[T], R], inputs: Iterable[T], *, num_cpus: float = 1.0, max_in_flight: int = 256
) -> Iterator[R]:
    """Yield `function(x)` for every x, in completion order.

    A failed task is retried by Ray when its worker died; an exception of the function itself is raised here. Retries of
    storage calls in the workers count as this process's.
    """

    @wraps(function)
    def counted(item: T) -> tuple[R, int]:
        return function(item), retries.take()

    remote = ray.remote(num_cpus=num_cpus)(counted)
    pending: list[Any] = []
    for item in inputs:
        if len(pending) >= max_in_flight:
            done, pending = ray.wait(pending, num_returns=1)
            yield from _results(done)
        pending.append(remote.remote(item))
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        yield from _results(done)


def own_errors(results: Iterable[R]) -> Iterator[R]:
    """Yield the results of a Ray Data execution; an error of ours inside it is raised as what it is, not as Ray's."""
    try:
        yield from results
    except Exception as error:
        own = _own_error(error)
        if own is None:
            raise
        raise own from error


def _own_error(error: BaseException | None) -> Exception | None:
    """Return the `UserError` or `JobError` behind an error, if there is one."""
    while error is not None:
        if isinstance(error, (UserError, JobError)):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _results(references: list[Any]) -> Iterator[Any]:
    for reference in references:
        try:
            result, num_retries = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error  # the function's own exception, so that callers can catch it by type
        retries.add(num_retries)
        yield result
