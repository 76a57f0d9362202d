"""What `chaos` kills, and how it sees from outside that a target's moment has come.

A moment is not a time: a job that was resumed, or whose machine is busy, is at any second elsewhere than the
undisturbed one was. It is what the job has come to: a process that runs, or so many files that it has written.
"""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

# One file for each batch of segments; shards and manifests of a generation that is being published.
STAGED, SHARDS = "staging/*/*.tar", "features/*/gen-*/*"
# A kill comes up to so long after its sign: else it would always be the first instant that is hit. Staging goes fast at
# its end, and a kill that comes late there leaves nothing for the next.
_PAUSE_S = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A part of a job, and when it is killed.

    Args:
        mark: in the command line of the processes of which one is killed; empty: the driver.
        during: in the command line of a process that has to run at the moment.
        writes: pattern, below the store, of the files of which the job has to have written some (a seeded number).
    """

    mark: str = ""
    during: str = ""
    writes: str = ""


TARGETS: dict[str, Target] = {
    "driver at the snapshot": Target(during="ray::_identify_batch"),
    "decode worker": Target(mark="ray::MapBatches(Decoder)"),
    "decoding child": Target(mark="pipelines.extraction.sandbox_child", during="ray::MapBatches(Decoder)"),
    "encoder actor": Target(mark="ray::MapWorker(MapBatches(EncodeStage", writes=STAGED),
    "staging actor": Target(mark="ray::MapWorker(MapBatches(Stager", writes=STAGED),
    "raylet": Target(mark="raylet/raylet", writes=STAGED),
    "driver": Target(writes=STAGED),
    "whole job": Target(writes=STAGED),
    "driver at publishing": Target(writes=SHARDS),
}
# On a cluster the job is not the parent of its workers, and a raylet is a node: the second one, the first has the head.
CLUSTER_TARGETS = {name: target for name, target in TARGETS.items() if name not in ("raylet", "whole job")} | {
    "node": Target(writes=STAGED)
}


class Moment:
    """When a target of one running job is to be killed: some pause after its sign, as soon as it is there.

    Args:
        store: the local folder that the job writes.
        most: files of the target's pattern; the moment comes when the job has written a number of them up to this.
        since_s: Unix time at which the job was started.
    """

    def __init__(self, target: Target, store: Path, most: int, since_s: float, rng: random.Random) -> None:
        self._target, self._store, self._since_s = target, store, since_s
        self._wanted = rng.randint(1, max(1, most)) if target.writes else 0
        self._pause_s = 0.0 if target.writes == STAGED else rng.uniform(0.0, _PAUSE_S)
        self._due_s = float("inf")

    def victims(self, processes: Mapping[psutil.Process, str]) -> list[psutil.Process]:
        """Return the processes of which one is to be killed now; none: not yet.

        Args:
            processes: those of the job with their command lines, the driver first.
        """
        if self._due_s == float("inf") and self._sign(processes.values()):
            self._due_s = time.monotonic() + self._pause_s
        if time.monotonic() < self._due_s:
            return []
        mark = self._target.mark
        return [member for member, line in processes.items() if mark in line] if mark else list(processes)[:1]

    def _sign(self, lines: Iterable[str]) -> bool:
        during = self._target.during or self._target.mark
        if during and not any(during in line for line in lines):
            return False
        return num_written(self._store, self._target.writes, self._since_s) >= self._wanted


def num_written(store: Path, pattern: str, since_s: float) -> int:
    """Return how many files of a pattern were made since a Unix time; 0 without a pattern."""
    found = 0
    for path in store.glob(pattern) if pattern else ():
        try:
            found += path.stat().st_ctime >= since_s
        except FileNotFoundError:  # renamed or removed meanwhile
            continue
    return found
