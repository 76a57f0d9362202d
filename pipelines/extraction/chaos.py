"""Kills an extraction at seeded random moments, resumes it, and compares the store with that of an undisturbed run.

A round is a fresh store: the job is started, something of it is killed by SIGKILL, it is started again, and so on; at
last it is left to end. Then every promise is checked: the same videos, keys, order and packing, the same bytes, the
same quarantine, nothing left in staging, no finding of verify.
"""

import hashlib
import logging
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hvlm.errors import JobError
from infra import storage
from pipelines.extraction.chaos_cluster import TwoNodes, family_of
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest
from pipelines.store.staging import STAGING_FOLDER
from pipelines.store.upkeep.verify import verify_store

logger = logging.getLogger(__name__)

# What is killed -> a part of its process's command line. Where none comes up in time, the driver is killed instead.
TARGETS: dict[str, str] = {
    "driver": "",
    "whole job": "",
    "raylet": "raylet/raylet",
    "decode worker": "ray::MapBatches(Decoder)",
    "decoding child": "pipelines.extraction.sandbox_child",
    "encoder actor": "ray::MapWorker(MapBatches(EncodeStage",
    "staging actor": "ray::MapWorker(MapBatches(Stager",
}
# On a cluster the job is not the parent of its workers, and a raylet is a node: the second one, the first has the head.
CLUSTER_TARGETS = {name: mark for name, mark in TARGETS.items() if name not in ("raylet", "whole job")} | {"node": ""}
_WAIT_S = 5.0
_PATIENCE_S = 300.0  # a job that lost a part goes on or ends; one that hangs is killed and counted


class ChaosError(JobError):
    """The undisturbed run, or the last run of a round, did not end well: there is nothing to compare."""


@dataclass(slots=True)
class ChaosReport:
    """What was killed, and what differs from the undisturbed run (nothing, if the promises hold).

    Args:
        kills: target -> how often it was killed.
        survived: kills after which the same job went on to its end; the others were resumed by starting it again.
        hung: jobs that neither went on nor ended.
        differences: one line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    survived: int = 0
    hung: int = 0
    differences: list[str] = field(default_factory=list)


def run_chaos(
    command: Callable[[str], Sequence[str]],
    root: Path,
    num_kills: int,
    seed: int,
    kills_per_round: int = 4,
    nodes: TwoNodes | None = None,
) -> ChaosReport:
    """Kill `num_kills` times and return what came of it.

    Args:
        command: the extraction's command line for a store URI; it must make the same features every time.
        root: a new local folder for the stores and logs.
        num_kills: over all rounds.
        seed: of the moments and targets.
        kills_per_round: after so many the job is left alone until it ends.
        nodes: the cluster that the jobs join; None: each starts a Ray of its own.

    Raises:
        ChaosError: the job does not even end well when it is left alone.
    """
    root.mkdir(parents=True)
    rng, report = random.Random(seed), ChaosReport()
    targets = _shuffled(sorted(CLUSTER_TARGETS if nodes else TARGETS), rng)
    started = time.monotonic()
    _finish(command, root / "reference")
    whole_s = time.monotonic() - started
    wanted = describe(str(root / "reference"))
    target = next(targets)
    while report.kills.total() < num_kills:
        report.rounds += 1
        store = root / f"round-{report.rounds:03d}"
        for number in range(min(kills_per_round, num_kills - report.kills.total())):
            process, started = _start(command(str(store)), store), time.monotonic()
            if not _kill_once(process, target, rng, whole_s, report, nodes):
                # It came to its end before: the target's turn is in the next round.
                if number == 0:  # a whole job: the machine is faster than when the last one was timed
                    whole_s = time.monotonic() - started
                break
            target = next(targets)
        _finish(command, store)
        found = [f"{store.name}: {line}" for line in compare(wanted, describe(str(store)))]
        logger.info("%s: %d of %d kills, %d differences", store.name, report.kills.total(), num_kills, len(found))
        report.differences += found
    return report


def describe(store_uri: str) -> dict[str, Any]:
    """Return what must not depend on kills, in comparable form."""
    manifest, failures = open_manifest(store_uri), FeatureStore.open(store_uri).failures()
    files = storage.list_files(storage.join(store_uri, "features"))
    content = {name: storage.read_bytes(storage.join(store_uri, "features", name)) for name in files}
    return {
        "samples": manifest.frame.rows(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
        "quarantine": sorted(failures.select("video_id", "stage", "reason", "content_hash", "encoder").rows()),
        "left in staging": sorted(storage.list_files(storage.join(store_uri, STAGING_FOLDER))),
        "found by verify": [str(problem) for problem in verify_store(store_uri).problems],
    }


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return one line for each part of two descriptions that differs."""
    return [
        f"{part}: {len(found[part])} entries, {len(wanted[part])} in the undisturbed run, or others"
        for part in wanted
        if found[part] != wanted[part]
    ]


def _shuffled(targets: list[str], rng: random.Random) -> Iterator[str]:
    """Yield targets for ever, each as often as the others."""
    while True:
        yield from rng.sample(targets, len(targets))


def _kill_once(
    process: "subprocess.Popen[bytes]",
    target: str,
    rng: random.Random,
    whole_s: float,
    report: ChaosReport,
    nodes: TwoNodes | None,
) -> bool:
    """Kill a part of a running job and wait for its end; False if it ended before."""
    moment = time.monotonic() + rng.uniform(0.2, 1.0) * whole_s
    while True:
        family = family_of(process.pid)
        if process.poll() is not None or not family:
            return False
        others = nodes.family() if nodes else []
        late = time.monotonic() - moment
        if late >= _WAIT_S or (late >= 0 and (target == "node" or _running(target, [*family, *others]))):
            break
        time.sleep(0.05)
    if target == "node" and nodes:
        nodes.kill()
        report.kills[target] += 1
    else:
        report.kills[_kill(target, family, rng, others)] += 1
    try:
        report.survived += process.wait(_PATIENCE_S) == 0
    except subprocess.TimeoutExpired:
        report.hung += 1
    _sweep([*family, *family_of(process.pid)])
    process.wait()
    if nodes:
        nodes.mend()
    return True


def _kill(target: str, family: list[psutil.Process], rng: random.Random, others: Sequence[psutil.Process] = ()) -> str:
    if target == "whole job":
        _sweep(family)
        return target
    chosen = _running(target, [*family, *others])
    with suppress(psutil.NoSuchProcess):
        rng.choice(chosen or family[:1]).kill()
    return target if chosen else "driver"


def _running(target: str, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return those of a job's processes, the driver first, that the target means."""
    mark = TARGETS[target]
    return [member for member in processes if mark in _command_of(member)] if mark else list(processes[:1])


def _start(command: Sequence[str], store: Path) -> "subprocess.Popen[bytes]":
    with open(f"{store}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def _finish(command: Callable[[str], Sequence[str]], store: Path) -> None:
    process = _start(command(str(store)), store)
    code = process.wait()
    if code != 0:
        last = Path(f"{store}.log").read_text(errors="replace").strip().splitlines()[-5:]
        raise ChaosError(f"the extraction left alone ended with {code}; the end of {store}.log:\n" + "\n".join(last))


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _sweep(family: list[psutil.Process]) -> None:
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()  # checks that the number still belongs to the same process
