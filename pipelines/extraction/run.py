"""The extraction job's driver: snapshot → plan → decode, encode, stage (Ray Data) → publish.

The driver alone writes the catalog: one commit every few seconds, never one per video. Killed at any moment, the next
run sweeps what was not committed and goes on with what is missing. With nothing to do, Ray is not even started.
"""

import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from hvlm.encoders.registry import describe_encoder
from hvlm.errors import JobError
from hvlm.video.decoding import get_backend
from infra.cluster import connect, require_resources, total_resources
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import Stages, extraction_dataset
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.ledger import Ledger
from pipelines.extraction.progress import Progress
from pipelines.extraction.resources import encoder_pool
from pipelines.extraction.staging_stage import StagedEncoder, Stager
from pipelines.extraction.work import work_table
from pipelines.ray_tasks import run_tasks
from pipelines.store.catalog import FeatureStore
from pipelines.store.fingerprint import fingerprint
from pipelines.store.plan import Plan, make_plan
from pipelines.store.publish import EncoderColumn, PublishSummary, publish
from pipelines.store.snapshot import SnapshotSummary, apply_snapshot, diff_listing, identify
from pipelines.store.sources import list_source
from pipelines.store.staging import sweep_orphans

logger = logging.getLogger(__name__)
VIDEOS_PER_WAVE = 50_000  # one Ray Data execution holds the work rows and outcomes of this many videos at once
BUDGET_FROM = 10  # the error budget is no judge of fewer failures than this
_IDENTIFY_BATCH = 64
FEATURE_SCHEMA = 1  # raised when the meaning of a stored feature row changes


class ErrorBudgetExceeded(JobError):
    """More videos failed than `max_failed_fraction` allows; what was staged stays."""


@dataclass(slots=True, kw_only=True)
class ExtractReport:
    """What one extraction did."""

    snapshot: SnapshotSummary
    plan: Plan
    published: PublishSummary
    num_done: int = 0
    num_frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    extract_s: float = 0.0
    total_s: float = 0.0


def encoder_columns(config: ExtractConfig) -> dict[str, EncoderColumn]:
    """Return each encoder's fingerprint, dimension and identity; decoder and sampling are part of it."""
    backend = get_backend(config.decode.backend)
    columns = {}
    for name, encoder in config.encoders.items():
        described = describe_encoder(encoder)
        identity = {
            **described.identity,
            "decoder": {"backend": backend.name, "version": backend.version},
            "dtype": "float16",
            "feature_schema": FEATURE_SCHEMA,
        }
        columns[name] = EncoderColumn(fingerprint=fingerprint(identity), dim=described.dim, identity=identity)
    return columns


def extract(config: ExtractConfig) -> ExtractReport:
    """Bring the store up to date with the source and return what was done.

    Raises:
        UserError: the source, the config or the cluster is wrong.
        ErrorBudgetExceeded: too many videos failed.
        RowConservationError: a row was lost or doubled; nothing of this run is published.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        run = _Run(config, stack)
        sweep_orphans(run.store)
        snapshot = run.snapshot()
        plan = run.plan()
        extract_started = time.monotonic()
        for start in range(0, plan.todo.height, VIDEOS_PER_WAVE):
            run.wave(plan, start)
        extract_s = time.monotonic() - extract_started
        run.check_budget(plan)
        published = publish(run.store, config.publish, run.columns, run.map_tasks)
        return ExtractReport(
            snapshot=snapshot,
            plan=plan,
            published=published,
            num_done=run.num_done,
            num_frames=run.num_frames,
            reasons=run.reasons,
            extract_s=extract_s,
            total_s=time.monotonic() - started,
        )


class _Run:
    """The state of one extraction; Ray is started by the first step that has work for it."""

    def __init__(self, config: ExtractConfig, stack: ExitStack) -> None:
        self.config = config
        self.store = FeatureStore.open(config.store_uri, create=True)
        self.columns = encoder_columns(config)
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self.num_done = self.num_frames = self.num_unreadable = 0
        self.reasons: Counter[str] = Counter()
        self._stack, self._connected = stack, False

    def snapshot(self) -> SnapshotSummary:
        """Read the source's listing; hash and probe what is new or changed, as Ray tasks."""
        diff = diff_listing(list_source(self.config.source), self.store.videos())
        rows = diff.to_hash.to_dicts()
        batches = [rows[start : start + _IDENTIFY_BATCH] for start in range(0, len(rows), _IDENTIFY_BATCH)]
        identified = [row for batch in self.map_tasks(_identify_batch, batches) for row in batch]
        self.reasons.update(row["failure"]["reason"] for row in identified if row["failure"])
        self.num_unreadable = self.reasons.total()
        return apply_snapshot(self.store, diff, identified, self.run_id)

    def plan(self) -> Plan:
        """Compare the snapshot with the catalog."""
        return plan_of(self.config, self.store, self.columns)

    def map_tasks(self, function: Callable[[Any], Any], inputs: Any) -> Any:
        """Yield the results of Ray tasks; no input, no Ray."""
        if not inputs:
            return []
        self._connect()
        return run_tasks(function, inputs)

    def wave(self, plan: Plan, start: int) -> None:
        """Decode, encode and stage up to `VIDEOS_PER_WAVE` planned videos."""
        self._connect()
        todo = plan.todo.slice(start, VIDEOS_PER_WAVE)
        ledger = Ledger.of(todo)
        work = work_table(todo, self.config.decode.segment_s)
        dataset = extraction_dataset(work, self._stages())
        progress = Progress(num_videos=todo.height)
        staged: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        committed = time.monotonic()
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            frames = 0
            for outcome in batch.to_pylist():
                row = json.loads(outcome["row"])
                frames += outcome["num_frames"]
                if outcome["kind"] == "staged":
                    ledger.staged(row)
                    staged.append(row)
                elif ledger.failed(row):
                    failed.append(row)
            self.num_frames += frames
            if time.monotonic() - committed >= self.config.commit_interval_s:
                self._commit(staged, failed)
                committed = time.monotonic()
            progress.update(done=ledger.num_done, failed=len(ledger.failures), frames=frames)
            self._check_failures(len(ledger.failures), plan.todo.height)
        self._commit(staged, failed)
        progress.close()
        ledger.check()
        self.num_done += ledger.num_done
        self.reasons += ledger.reasons()

    def check_budget(self, plan: Plan) -> None:
        """Fail when more videos failed than the config allows."""
        self._check_failures(0, plan.todo.height)

    def _check_failures(self, in_wave: int, num_todo: int) -> None:
        planned, failed = num_todo + self.num_unreadable, self.reasons.total() + in_wave
        if failed > BUDGET_FROM and failed > self.config.max_failed_fraction * planned:
            raise ErrorBudgetExceeded(
                f"{failed} of {planned} planned videos failed, "
                f"more than max_failed_fraction={self.config.max_failed_fraction} allows; "
                f"what was staged stays. Reasons so far: {dict(self.reasons)}; see `failures` in the store's catalog"
            )

    def _commit(self, staged: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
        if staged:
            self.store.commit_staged(staged)
        if failed:
            self.store.commit_failures([self._failure_row(row) for row in failed])
        staged.clear()
        failed.clear()

    def _failure_row(self, row: dict[str, Any]) -> dict[str, Any]:
        stage, _, encoder = row["stage"].partition(":")
        return {
            "run_id": self.run_id,
            "video_id": row["video_id"],
            "content_hash": row["content_hash"],
            "encoder": encoder,
            "fingerprint": self.columns[encoder].fingerprint if encoder else "",
            "stage": stage,
            "reason": row["reason"],
            "permanent": row["permanent"],
            "message": row["message"],
        }

    def _stages(self) -> Stages:
        config = self.config
        pool = encoder_pool(config.resources, total_resources(), len(config.encoders))
        require_resources(
            {"CPU": config.resources.decode_num_cpus + pool.num_cpus * pool.num_actors * len(config.encoders)}
            | ({"GPU": pool.num_gpus * pool.num_actors * len(config.encoders)} if pool.num_gpus else {})
        )
        layout = layout_of(config)
        return Stages(
            decoder=Decoder(
                backend=config.decode.backend,
                segment_s=config.decode.segment_s,
                views={name: describe_encoder(encoder).view for name, encoder in config.encoders.items()},
            ),
            encoders=config.encoders,
            stager=Stager(
                store_uri=self.store.uri,
                run_id=self.run_id,
                encoders={
                    name: StagedEncoder(fingerprint=column.fingerprint, layout=layout, dim=column.dim)
                    for name, column in self.columns.items()
                },
            ),
            pool=pool,
            resources=config.resources,
        )

    def _connect(self) -> None:
        if not self._connected:
            self._stack.enter_context(connect(self.config.cluster))
            self._connected = True


def plan_of(config: ExtractConfig, store: FeatureStore, columns: dict[str, EncoderColumn]) -> Plan:
    """Return the plan of this config on the store as it is now."""
    fingerprints = {name: column.fingerprint for name, column in columns.items()}
    layouts = dict.fromkeys(fingerprints, layout_of(config))
    return make_plan(store.frames(), fingerprints, layouts, config.publish.splits, config.retry_failed)


def layout_of(config: ExtractConfig) -> str:
    """Return the name of the way videos are cut into segments; only segments of one layout are put together."""
    return f"segment_s={config.decode.segment_s:g}"


def _identify_batch(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [identify(row) for row in rows]
