"""Kills an extraction at seeded random moments, resumes it, and compares the store with that of an undisturbed run.

A round is a fresh store: the job is started, something of it is killed by SIGKILL, it is started again if that ended
it, and so on; at last it is left to end. Then every promise is checked: the same videos, keys, order and packing, the
same bytes, the same quarantine, nothing left in staging, no finding of verify.

In every second round the source changes too, each time the job is dead: a video is added, replaced, deleted or renamed.
The store is then compared with that of an undisturbed run over the source as it was at the end. Generations, shards and
offsets depend on what was published before a change, and the quarantine remembers what failed before one; all else is
the same: the videos with their keys, splits and content, every sample's bytes (features, times, metadata), the failures
of the content that is there, nothing left in staging, no finding of verify.
"""

import hashlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors

from infra import storage
from pipelines.chaos.cluster import TwoNodes
from pipelines.chaos.round import ChaosError, Round
from pipelines.chaos.source import ChangingSource
from pipelines.chaos.targets import CLUSTER_TARGETS, TARGETS
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest
from pipelines.store.staging import STAGING_FOLDER
from pipelines.store.upkeep.verify import verify_store

logger = logging.getLogger(__name__)
_FRUITLESS = 3  # rounds in which no target's moment came: then it never will

Command = Callable[[str, str], Sequence[str]]
"""The extraction's command line for a store URI and a source URI; it must make the same features every time."""


@dataclass(slots=True)
class ChaosReport:
    """What was killed, and what differs from the undisturbed run (nothing, if the promises hold).

    Args:
        kills: target -> how often it was killed.
        changes: of the source, between a kill and the resume.
        survived: jobs that went on to their end although a part of them was killed; the others were started again.
        hung: jobs that neither went on nor ended.
        differences: one line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    changes: int = 0
    survived: int = 0
    hung: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, done: Round, differences: Sequence[str]) -> None:
        """Count a round and what was found in its store."""
        self.rounds += 1
        self.kills += done.kills
        self.changes += done.num_changes
        self.survived += done.survived
        self.hung += done.hung
        self.differences += [f"{done.store.name}: {line}" for line in differences]


@dataclass(frozen=True, slots=True, kw_only=True)
class KillPlan:
    """How often to kill.

    Args:
        num_kills: over all rounds. per_round: targets of one round; what comes after them is left alone until it ends.
        seed: of targets, moments and changes.
        change_source: change a copy of the source, a local folder, in every second round.
    """

    num_kills: int
    seed: int = 0
    per_round: int = 4
    change_source: bool = False


def run_chaos(
    command: Command, source_uri: str, root: Path, plan: KillPlan, nodes: TwoNodes | None = None
) -> ChaosReport:
    """Kill as often as planned, each target as often as the others, and return what came of it.

    Args:
        root: a new local folder for the stores, logs and changed sources.
        nodes: the cluster that the jobs join; None: each starts a Ray of its own.

    Raises:
        ChaosError: the job does not even end well when it is left alone, or ends before anything can be killed.
    """
    root.mkdir(parents=True)
    rng, report = random.Random(plan.seed), ChaosReport()
    plain = Round(command=command(str(root / "undisturbed"), source_uri), store=root / "undisturbed", rng=rng)
    num_files = plain.finish()
    wanted = describe(str(plain.store))
    names, waiting = sorted(CLUSTER_TARGETS if nodes else TARGETS), deque[str]()
    fruitless = 0
    while report.kills.total() < plan.num_kills:
        number = min(plan.per_round, plan.num_kills - report.kills.total())
        while len(waiting) < number:
            waiting.extend(rng.sample(names, len(names)))
        store = root / f"round-{report.rounds + 1:03d}"
        changes = plan.change_source and report.rounds % 2 == 1
        source = ChangingSource(Path(source_uri), Path(f"{store}-source"), rng) if changes else None
        read = command(str(store), str(source.path) if source else source_uri)
        done = Round(command=read, store=store, rng=rng, num_files=num_files, source=source, nodes=nodes)
        missed = done.kill([waiting.popleft() for _ in range(number)])
        waiting.extendleft(reversed(missed))  # their turn is in the next round
        fruitless = 0 if done.kills else fruitless + 1
        if fruitless == _FRUITLESS:
            raise ChaosError(f"{fruitless} jobs came to their end, and none of these was there to be killed: {missed}")
        done.finish()
        found = _differences(command, source, done) if source else compare(wanted, describe(str(store)))
        report.add(done, found)
        logger.info("%s: %d of %d kills, %d differences", store.name, report.kills.total(), plan.num_kills, len(found))
    return report


def _differences(command: Command, source: ChangingSource, done: Round) -> list[str]:
    """Extract what the source is at last into a new store, undisturbed, and compare."""
    store = Path(f"{done.store}-undisturbed")
    Round(command=command(str(store), str(source.path)), store=store, rng=done.rng).finish()
    return compare(describe_content(str(store)), describe_content(str(done.store)))


def describe(store_uri: str) -> dict[str, list[Any]]:
    """Return what must not depend on kills, in comparable form."""
    files = storage.list_files(storage.join(store_uri, "features"))
    content = {name: storage.read_bytes(storage.join(store_uri, "features", name)) for name in files}
    return {
        "samples": open_manifest(store_uri).frame.rows(),
        "files": [(name, hashlib.sha256(data).hexdigest()) for name, data in sorted(content.items())],
        **_left(store_uri, FeatureStore.open(store_uri).failures()),
    }


def describe_content(store_uri: str) -> dict[str, list[Any]]:
    """Return what must depend neither on kills nor on what the source was before, in comparable form."""
    manifest, store = open_manifest(store_uri), FeatureStore.open(store_uri)
    packing = selectors.by_name("gen") | selectors.ends_with(".shard", ".offset")
    current = store.videos().select("video_id", "content_hash")
    failures = store.failures().join(current, on=["video_id", "content_hash"], how="semi")
    return {
        "samples": manifest.frame.select(~packing).sort("key").rows(),
        "videos without all encoders": [manifest.num_incomplete],
        **_left(store_uri, failures),
    }


def _left(store_uri: str, failures: pl.DataFrame) -> dict[str, list[Any]]:
    return {
        "quarantine": sorted(failures.select("video_id", "stage", "reason", "content_hash", "encoder").rows()),
        "left in staging": sorted(storage.list_files(storage.join(store_uri, STAGING_FOLDER))),
        "found by verify": [str(problem) for problem in verify_store(store_uri).problems],
    }


def compare(wanted: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Return one line for each part of two descriptions that differs."""
    return [
        f"{part}: {len(found[part])} entries, {len(wanted[part])} in the undisturbed run, or others"
        for part in wanted
        if found[part] != wanted[part]
    ]
