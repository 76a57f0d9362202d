"""Spreads the embedding over Ray actors and proves that every sample went through exactly once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import ray

from hvlm.config import Config, require
from infra.cluster import Bundle, total_resources

_CPUS_PER_ACTOR = 2  # of the cluster, where the number of actors is left open


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResources(Config):
    """What the evaluation asks of the cluster.

    Args:
        num_actors: models that embed side by side; null: one per GPU of the cluster, else one per 2 CPUs, or
            per `num_cpus_per_actor` where that is more.
        num_cpus_per_actor: CPUs (and PyTorch threads) of each.
        num_gpus_per_actor: GPUs of each; null: 1 where the cluster has GPUs, else 0.
        videos_per_task: videos that are sent to an actor at once.
        rows_per_forward: padded rows of one forward pass; bounds an actor's memory.
    """

    num_actors: int | None = None
    num_cpus_per_actor: float = 1.0
    num_gpus_per_actor: float | None = None
    videos_per_task: int = 16
    rows_per_forward: int = 8192

    def __post_init__(self) -> None:
        for name in ("videos_per_task", "rows_per_forward"):
            value = getattr(self, name)
            require(value >= 1, what=f"resources.{name}", got=value, expected="1 or more", do=f"raise {name}")
        actors, cpus = self.num_actors, self.num_cpus_per_actor
        require(
            actors is None or actors >= 1,
            what="resources.num_actors",
            got=actors,
            expected="1 or more",
            do="set e.g. 1",
        )
        gpus = self.num_gpus_per_actor
        require(
            gpus is None or gpus >= 0,
            what="resources.num_gpus_per_actor",
            got=gpus,
            expected="0 or more",
            do="set 0 for CPUs only, or leave it out",
        )
        require(cpus > 0, what="resources.num_cpus_per_actor", got=cpus, expected="above 0", do="set e.g. 1")


class ConservationError(RuntimeError):
    """Samples were lost or embedded twice; the evaluation must not report anything."""


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


K = TypeVar("K", bound=_Keyed)


def check_conservation(expected: Iterable[str], found: Iterable[str], stage: str) -> None:
    """Prove that the keys that came out are exactly those that went in.

    Raises:
        ConservationError: naming how many are missing, foreign or double, and the first of them.
    """
    wanted, got = Counter(expected), Counter(found)
    missing, surplus = wanted - got, got - wanted
    if missing or surplus:
        first = next(iter((missing + surplus).elements()))
        counts = f"{missing.total()} samples missing and {surplus.total()} too many of {wanted.total()}"
        raise ConservationError(f"{stage}: {counts}, e.g. '{first}'")


class ActorPool:
    """Ray actors that each hold the model. Use as a context manager: the actors end with it.

    Args:
        actor_class: made with `setup` on each actor; its methods that `map` calls take rows and return keyed results.
        setup: what an actor needs to start on any machine.
        resources: how many actors, and what each asks for.
    """

    def __init__(self, actor_class: type[Any], setup: object, resources: EvaluateResources) -> None:
        wanted = embedders(resources)
        # A task of an actor that died runs again on its restart: results are pure functions of their rows.
        actor = ray.remote(
            num_cpus=wanted.each["CPU"], num_gpus=wanted.each["GPU"], max_restarts=3, max_task_retries=3
        )(actor_class)
        self._actors = [actor.remote(setup) for _ in range(wanted.num)]
        self._videos_per_task = resources.videos_per_task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def call(self, method: str, *arguments: object) -> Any:
        """Return what a method gives on one actor."""
        return _result(getattr(self._actors[0], method).remote(*arguments))

    def map(self, rows: Sequence[Mapping[str, Any]], method: str, *shared: object) -> list[Any]:
        """Return what a method gives for every manifest row, in their order.

        Args:
            rows: of the manifest; a method gets some of them at once.
            method: of the actor.
            shared: further arguments; large ones once through `ray.put`.

        Raises:
            ConservationError: a row was lost or came back twice.
        """
        by_length = sorted(
            rows, key=lambda row: -float(row["duration_s"])
        )  # long videos first: no long tail at the end
        size = self._videos_per_task
        waiting = [by_length[start : start + size] for start in range(0, len(by_length), size)][::-1]
        results: list[Any] = []
        running: dict[Any, Any] = {}
        idle = list(self._actors)
        while waiting or running:
            while waiting and idle:
                actor = idle.pop()
                running[getattr(actor, method).remote(waiting.pop(), *shared)] = actor
            done, _ = ray.wait(list(running), num_returns=1)
            idle.append(running.pop(done[0]))
            results += _result(done[0])
        check_conservation((str(row["key"]) for row in rows), (result.key for result in results), method)
        return in_order_of(rows, results)


def in_order_of(rows: Sequence[Mapping[str, Any]], results: Sequence[K]) -> list[K]:
    """Return results in the order of the manifest rows, whatever order they came in."""
    by_key = {result.key: result for result in results}
    return [by_key[str(row["key"])] for row in rows]


def embedders(resources: EvaluateResources) -> Bundle:
    """Return how many actors embed, and what each asks for, on the cluster that is connected."""
    total = total_resources()
    cpus, gpus = resources.num_cpus_per_actor, resources.num_gpus_per_actor
    if gpus is None:
        gpus = 1.0 if total.get("GPU", 0.0) else 0.0
    default = total.get("GPU", 0.0) / gpus if gpus else total.get("CPU", 1.0) / max(_CPUS_PER_ACTOR, cpus)
    return Bundle({"CPU": cpus, "GPU": gpus}, resources.num_actors or max(1, int(default)))


def device_of(resources: EvaluateResources) -> str:
    """Return the device that actors use: cuda when they are given a GPU."""
    return "cuda" if embedders(resources).each["GPU"] else "cpu"


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the actor's own exception, so that a UserError stays one
