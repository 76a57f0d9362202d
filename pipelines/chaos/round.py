"""One round of `chaos`: a fresh store, a job that is killed and started again, and at last left to its end."""

import logging
import random
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from hvlm.errors import JobError
from pipelines.chaos.cluster import TwoNodes, family_of
from pipelines.chaos.source import ChangingSource
from pipelines.chaos.targets import CLUSTER_TARGETS, SHARDS, STAGED, TARGETS, Moment, num_written

logger = logging.getLogger(__name__)
_POLL_S = 0.05
_PATIENCE_S = 300.0  # a job that lost a part goes on or ends; one that hangs is killed and counted


class ChaosError(JobError):
    """A job that was left alone did not end well, or nothing of it could be killed."""


@dataclass(slots=True, kw_only=True)
class Round:
    """Kills of one store, and what came of them.

    Args:
        command: of the extraction into the store.
        store: a local folder; `{store}.log` gets what the jobs print.
        num_files: pattern -> how many files of it the undisturbed run wrote.
        source: what the jobs read, if it is to change each time one is dead.
        nodes: the cluster that the jobs join; None: each starts a Ray of its own.
        survived: jobs that came to a good end although a part of them was killed. hung: those that did not end at all.
    """

    command: Sequence[str]
    store: Path
    rng: random.Random
    num_files: Mapping[str, int] = field(default_factory=dict)
    source: ChangingSource | None = None
    nodes: TwoNodes | None = None
    kills: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    hung: int = 0
    num_changes: int = 0
    _started: bool = False

    def kill(self, names: Sequence[str]) -> list[str]:
        """Kill each of the targets when its moment comes; return those whose moment did not come before the end.

        Raises:
            ChaosError: a job of which nothing was killed failed.
        """
        waiting = list(names)
        while waiting:
            before = self.kills.total()
            code = self._run_one(waiting)
            hit = self.kills.total() > before
            if code == 0:
                self.survived += hit
                break
            if not hit:
                raise ChaosError(_end_of(self.store, code))
        return waiting

    def finish(self) -> dict[str, int]:
        """Let a job come to its end; return how many files of each pattern were seen at most.

        Raises:
            ChaosError: it failed.
        """
        process, since_s, most = self._start(), time.time(), dict.fromkeys((STAGED, SHARDS), 0)
        while process.poll() is None:
            most = {pattern: max(seen, num_written(self.store, pattern, since_s)) for pattern, seen in most.items()}
            time.sleep(_POLL_S)
        if process.returncode != 0:
            raise ChaosError(_end_of(self.store, process.returncode))
        return most

    def _run_one(self, waiting: list[str]) -> int:
        """Run a job until it ends, take the targets that were killed from the list, and return the exit code."""
        moments = self._moments(waiting)
        process, killed_s = self._start(), float("inf")
        family = family_of(process.pid)
        while process.poll() is None:
            family = family_of(process.pid) or family
            others = self.nodes.family() if self.nodes else []
            lines = {member: _command_of(member) for member in (*family, *others)}
            for name in list(waiting):
                if victims := moments[name].victims(lines):
                    victim = self.rng.choice(victims)
                    self._kill(name, victim, family)
                    if victim.pid == process.pid and name != "node":
                        process.wait()
                    waiting.remove(name)
                    killed_s = time.monotonic()
                    break
            if time.monotonic() - killed_s > _PATIENCE_S:
                self.hung += 1
                break
            time.sleep(_POLL_S)
        _sweep([*family, *family_of(process.pid)])
        process.wait()
        if self.nodes:
            self.nodes.mend()
        return process.returncode

    def _moments(self, names: Sequence[str]) -> dict[str, Moment]:
        """Draw the moments of a job: each comes in the first half of what is left to be written."""
        now_s, targets = time.time(), CLUSTER_TARGETS if self.nodes else TARGETS
        left = {pattern: most - num_written(self.store, pattern, 0.0) for pattern, most in self.num_files.items()}
        return {
            name: Moment(targets[name], self.store, left.get(targets[name].writes, 0) // 2, now_s, self.rng)
            for name in names
        }

    def _kill(self, name: str, victim: psutil.Process, family: Sequence[psutil.Process]) -> None:
        logger.info("%s: killing %s", self.store.name, name)
        self.kills[name] += 1
        if name == "node" and self.nodes:
            self.nodes.kill()
        else:
            _sweep(family if name == "whole job" else [victim])

    def _start(self) -> "subprocess.Popen[bytes]":
        if self.source and self._started:
            self.num_changes += 1
            logger.info("%s: %s", self.store.name, self.source.change())
        self._started = True
        with open(f"{self.store}.log", "ab") as log:
            return subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )


def _end_of(store: Path, code: int) -> str:
    last = Path(f"{store}.log").read_text(errors="replace").strip().splitlines()[-5:]
    return f"the extraction left alone ended with {code}; the end of {store}.log:\n" + "\n".join(last)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _sweep(family: Sequence[psutil.Process]) -> None:
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()  # checks that the number still belongs to the same process
