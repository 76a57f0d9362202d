"""The extraction job's driver: snapshot → plan → decode, encode, stage (Ray Data) → publish.

The driver alone writes the catalog: one commit every few seconds, never one per video. Killed at any moment, the next
run sweeps what was not committed and goes on with what is missing. With nothing to do, Ray is not even started.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from hvlm.errors import JobError, Reason
from infra import retries
from infra.cluster import Bundle, connect, require_resources
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import extraction_dataset
from pipelines.extraction.encode_stage import MixedUpError
from pipelines.extraction.ledger import DECODE, PUBLISH, Counts, RowConservationError, StageCount, add_counts
from pipelines.extraction.outcomes import Outcomes
from pipelines.extraction.prediction import Pace, Prediction, is_work, predict, predicted_from
from pipelines.extraction.progress import Progress
from pipelines.extraction.remembered import remember_config
from pipelines.extraction.salvage import damaged, drop_whole_staged, held_back, retire_whole, salvage_todo
from pipelines.extraction.sandbox import DecodeLimits, process_sandbox
from pipelines.extraction.stages import encoder_columns, layout_of, new_run_id, row_seconds, stages_of
from pipelines.extraction.work import work_table
from pipelines.ray_tasks import own_errors, run_tasks
from pipelines.store.catalog import FeatureStore
from pipelines.store.claim import claim_source
from pipelines.store.encoders import EncoderColumn
from pipelines.store.plan import Plan, make_plan
from pipelines.store.publish import PublishSummary, publish
from pipelines.store.snapshot import SnapshotSummary, apply_snapshot, diff_listing, identify
from pipelines.store.sources import SourceListing, list_source
from pipelines.store.spans import holds_spans
from pipelines.store.staging import discard_run, sweep_orphans
from pipelines.store.upkeep.maintenance import MAX_FILES, tidy_tables

logger = logging.getLogger(__name__)
VIDEOS_PER_WAVE = 50_000  # one Ray Data execution holds the work rows and outcomes of this many videos at once
BUDGET_FROM = 10  # the error budget is no judge of fewer failures than this
_IDENTIFY_BATCH = 64


class ErrorBudgetExceeded(JobError):
    """More than 10 videos and lines of the list failed, and more of them than `max_failed_fraction` allows."""


@dataclass(slots=True, kw_only=True)
class ExtractReport:
    """What one extraction did."""

    listing: SourceListing
    snapshot: SnapshotSummary
    plan: Plan
    published: PublishSummary
    num_done: int = 0
    num_frames: int = 0
    video_s: float = 0.0
    predicted: Prediction | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    num_retries: int = 0
    """storage calls that failed for the moment and were made again, here and in Ray's workers"""
    salvaged: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """video_id → seconds that were kept, seconds that the file states"""
    counts: Counts = field(default_factory=dict)
    """stage → pieces (segment × encoder) that went through it; `publish` → videos of the snapshot"""
    extract_s: float = 0.0
    total_s: float = 0.0


def extract(config: ExtractConfig) -> ExtractReport:
    """Bring the store up to date with the source and return what was done.

    Raises:
        UserError: the source, the config or the cluster is wrong.
        StoreIsHeld, LeaseLost: another job writes into the store, or has taken it over.
        ErrorBudgetExceeded: too many videos failed.
        RowConservationError: a row was lost or doubled; nothing is published (but for a video that publishing itself
            does not account for), what was staged stays.
        MixedUpError: a row has another clip's features; nothing is published, and what the run staged is dropped.
    """
    started = time.monotonic()
    retries.take()  # what was before this run is not counted
    with ExitStack() as stack:
        run = _Run(config, stack)
        stack.enter_context(run.store.writing("jobs.extract"))
        sweep_orphans(run.store)
        tidy_tables(run.store)
        snapshot = run.snapshot()
        plan = plan_of(config, run.store, run.columns)
        predicted = run.foretell(plan)
        extract_started = time.monotonic()
        run.check_budget(plan, [])
        todo = run.readable(run.undamaged(plan.todo))
        for start in range(0, todo.height, VIDEOS_PER_WAVE):
            run.wave(plan, todo.slice(start, VIDEOS_PER_WAVE))
        run.salvage(plan)
        extract_s = time.monotonic() - extract_started
        run.check_whole(plan)
        published = run.publish(plan)
        return ExtractReport(
            listing=run.listing,
            snapshot=snapshot,
            plan=plan,
            published=published,
            num_done=run.num_done,
            num_frames=run.num_frames,
            video_s=run.video_s,
            predicted=replace(predicted, seconds=run.pace.predicted_s) if predicted else None,
            failures=run.failures,
            num_retries=retries.take(),
            salvaged=run.salvaged,
            counts=run.counts,
            extract_s=extract_s,
            total_s=time.monotonic() - started,
        )


class _Run:
    """The state of one extraction; Ray is started by the first step that has work for it."""

    def __init__(self, config: ExtractConfig, stack: ExitStack) -> None:
        self.config = config
        self.columns = encoder_columns(config)
        self.fingerprints = {name: column.fingerprint for name, column in self.columns.items()}
        self.listing = list_source(config.source)
        self.store = FeatureStore.open(config.store_uri, create=True)  # last: a wrong source leaves no empty store
        self.run_id = new_run_id()
        self.num_done = self.num_failed = self.num_frames = self.num_commits = 0
        self.video_s = 0.0
        self.pace = Pace(total_s=0.0)
        self.unread: list[str] = []
        self.failures: list[dict[str, Any]] = []
        self.salvaged: dict[str, tuple[float, float | None]] = {}
        self.counts: Counts = {}
        self._again: set[str] = set()  # the videos that are salvaged: what they were before counts no more
        self._stack, self._connected, self._remembered = stack, False, False

    def snapshot(self) -> SnapshotSummary:
        """Read the source's listing; hash and probe what is new or changed, as Ray tasks."""
        known = self.store.videos()
        spans = holds_spans(known, self.config.samples_spans, self.store.uri)
        claim_source(self.store, "videos", self.config.source.uri, self.config.source.replace)
        diff = diff_listing(self.listing, known, spans)
        rows = diff.to_hash.to_dicts()
        limits = self.config.decode.limits
        batches = [(limits, rows[start : start + _IDENTIFY_BATCH]) for start in range(0, len(rows), _IDENTIFY_BATCH)]
        identified = [row for batch in self.map_tasks(_identify_batch, batches) for row in batch]
        self.failures += [row | row["failure"] for row in identified if row["failure"]]
        self.unread = [row["video_id"] for row in self.failures if row["content_hash"] is None]
        return apply_snapshot(self.store, diff, identified, self.run_id)

    def foretell(self, plan: Plan) -> Prediction | None:
        """Return what the plan will come to, but for the time: that follows from the run's first part."""
        if not is_work(plan):
            return None
        predicted = predict(self.config, plan, self.store.videos(predicted_from(self.config)))
        self.pace = Pace(total_s=predicted.hours * 3600)
        return predicted

    def map_tasks(self, function: Callable[[Any], Any], inputs: Any) -> Any:
        """Yield the results of Ray tasks; no input, no Ray."""
        if not inputs:
            return []
        self._connect()
        return run_tasks(function, inputs)

    def readable(self, todo: pl.DataFrame) -> pl.DataFrame:
        """Return the planned videos whose file was seen whole in this run, with what `work_table` asks for.

        The catalog still has the old row of a file that could not be read now: what it holds today is not known.
        """
        spans = ["metadata_json"] if self.config.samples_spans else []
        seen = self.listing.frame.select("video_id", "size_bytes", "stamp", *spans)
        return todo.join(seen.filter(~pl.col("video_id").is_in(self.unread)), on="video_id", maintain_order="left")

    def undamaged(self, todo: pl.DataFrame) -> pl.DataFrame:
        """Return the planned videos without those that are salvaged: what one encoder found counts for all."""
        if self.config.decode.on_truncated != "salvage":
            return todo
        cut = damaged(self.store.failures(), self.fingerprints)
        return todo.join(cut, on=["video_id", "content_hash"], how="anti", maintain_order="left")

    def salvage(self, plan: Plan) -> None:
        """Extract what can be decoded of the videos that are, or were just put, in quarantine as truncated."""
        if self.config.decode.on_truncated != "salvage":
            return
        self._salvage(plan)
        if retire_whole(self.store, self.fingerprints):
            self._salvage(plan)

    def _salvage(self, plan: Plan) -> None:
        if damaged(self.store.failures(), self.fingerprints).is_empty():
            return
        layout, splits = layout_of(self.config), self.config.publish.splits
        todo = self.readable(salvage_todo(self.store.frames(), self.fingerprints, layout, splits))
        drop_whole_staged(self.store, todo)
        self._again |= set(todo["video_id"])
        judged_again = [row for row in self.failures if row["video_id"] in self._again]
        self.failures = [row for row in self.failures if row["video_id"] not in self._again]
        self.num_failed -= len(judged_again)
        for start in range(0, todo.height, VIDEOS_PER_WAVE):
            self.wave(plan, todo.slice(start, VIDEOS_PER_WAVE), salvage=True)

    def wave(self, plan: Plan, todo: pl.DataFrame, salvage: bool = False) -> None:
        """Decode, encode and stage up to `VIDEOS_PER_WAVE` planned videos, or what can be decoded of them."""
        self._connect()
        outcomes = Outcomes.of(todo, self.config.span_encoders)
        work = work_table(todo, row_seconds(self.config, salvage))
        stages = stages_of(self.config, self.columns, self.store.uri, self.run_id, salvage)
        dataset = extraction_dataset(work, stages)
        committed = time.monotonic()
        try:
            with Progress(num_videos=todo.height) as progress:
                for batch in own_errors(
                    dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
                ):
                    frames = outcomes.take(batch.to_pylist())
                    self.num_frames += frames
                    self.pace.reached(self.video_s + outcomes.video_s)
                    if time.monotonic() - committed >= self.config.commit_interval_s:
                        self._commit(outcomes)
                        committed = time.monotonic()
                    progress.update(done=outcomes.ledger.num_done, failed=len(outcomes.ledger.failures), frames=frames)
                    self.check_budget(plan, list(outcomes.ledger.failures.values()))
        except MixedUpError:
            outcomes.staged.clear()
            discard_run(self.store, self.run_id)  # only a few batches are proved: none before is known to be right
            raise
        finally:
            self._commit(outcomes)  # also after an abort: what is done stays done
        outcomes.ledger.check()
        add_counts(self.counts, outcomes.ledger.counts)
        self.num_done += outcomes.ledger.num_done
        self.video_s += outcomes.video_s
        self.num_failed += len(outcomes.ledger.failures)
        self.failures += outcomes.ledger.failures.values()
        if salvage:
            stated = dict(todo.select("video_id", "duration_s").iter_rows())
            kept = {name: value for name, value in outcomes.kept_s.items() if name not in outcomes.ledger.failures}
            self.salvaged |= {name: (kept_s, stated[name]) for name, kept_s in kept.items()}

    def publish(self, plan: Plan) -> PublishSummary:
        """Publish what is complete; every video of the plan's snapshot is accounted for."""
        done = publish(self.store, self.config.publish, self.columns, self.map_tasks)
        left = done.already_published + done.incomplete
        self.counts[PUBLISH] = StageCount(plan.num_videos, done.published, left, done.failed)
        if not self.counts[PUBLISH].is_whole:
            raise RowConservationError(f"{PUBLISH}: {self.counts[PUBLISH]} is not true")
        return done

    def check_whole(self, plan: Plan) -> None:
        """Judge the run's failures, and the whole quarantine, before anything is published.

        Running again must not turn a failed run into a good one: what an earlier run put into quarantine counts too.
        """
        failed = len(held_back(plan) - self._again) + self.num_failed + len(self.unread)
        done = plan.status.filter(pl.col("status").is_in(["done", "staged", "relabelled"])).height
        if failed and not done and not self.num_done:
            listed = self.listing.frame.height
            raise ErrorBudgetExceeded(f"none of {listed} videos could be extracted{self._reasons([])}")
        self._require_budget(plan, failed, [])

    def check_budget(self, plan: Plan, in_wave: list[dict[str, Any]]) -> None:
        """Judge the failures of this run so far; rejected lines of the list are among them from the start."""
        failed = [*self.failures, *in_wave]
        if self.config.decode.on_truncated == "salvage":  # these are not lost yet
            failed = [row for row in failed if row["reason"] != Reason.TRUNCATED]
        self._require_budget(plan, len(failed), in_wave)

    def _require_budget(self, plan: Plan, failed: int, in_wave: list[dict[str, Any]]) -> None:
        rejected = len(self.listing.rejected)
        failed, planned = failed + rejected, plan.num_videos + len(self.unread) + rejected
        if failed > BUDGET_FROM and failed > self.config.max_failed_fraction * planned:
            raise ErrorBudgetExceeded(
                f"{failed} of {planned} videos failed, "
                f"more than max_failed_fraction={self.config.max_failed_fraction} allows; "
                f"what was staged stays{self._reasons(in_wave)}"
            )

    def _reasons(self, in_wave: list[dict[str, Any]]) -> str:
        counted = Counter(str(row["reason"]) for row in [*self.listing.rejected, *self.failures, *in_wave])
        table = "".join(f"\n  {count} × {reason}" for reason, count in counted.most_common())
        return f". The table `failures` of the store says why; by reason in this run:{table or ' none new'}"

    def _commit(self, outcomes: "Outcomes") -> None:
        staged, failed = outcomes.drain()
        if staged:
            if not self._remembered:  # before the commit: a kill in between leaves segments that are made again
                remember_config(self.store, self.config)
                self._remembered = True
            self.store.commit_staged(staged)
        if failed:
            self.store.commit_failures([row for failure in failed for row in self._failure_rows(failure)])
        self.num_commits += 1
        if self.num_commits % MAX_FILES == 0:
            tidy_tables(self.store)

    def _failure_rows(self, failure: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row per encoder that the failure keeps from the video: all that were needed, or the one that failed.

        The fingerprint holds the decoder too: another backend, or another encoder, is another attempt.
        """
        stage, _, encoder = failure["stage"].partition(":")
        shared = {name: failure[name] for name in ("video_id", "uri", "content_hash", "reason", "permanent", "message")}
        if stage == DECODE:
            shared["decoder"] = "{backend} {version}".format(**next(iter(self.columns.values())).identity["decoder"])
        return [
            {
                **shared,
                "run_id": self.run_id,
                "stage": stage,
                "encoder": name,
                "fingerprint": self.columns[name].fingerprint,
            }
            for name in ([encoder] if encoder else failure["encoders"])
        ]

    def _connect(self) -> None:
        if not self._connected:
            self._stack.enter_context(connect(self.config.cluster))
            self._connected = True
            require_resources(
                [Bundle({"CPU": max(1.0, self.config.resources.decode_num_cpus)})], what="resources.decode_num_cpus"
            )


def plan_of(config: ExtractConfig, store: FeatureStore, columns: dict[str, EncoderColumn]) -> Plan:
    """Return the plan of this config on the store as it is now."""
    fingerprints = {name: column.fingerprint for name, column in columns.items()}
    layouts = dict.fromkeys(fingerprints, layout_of(config))
    return make_plan(store.frames(), fingerprints, layouts, config.publish.splits, config.retry_failed)


def _identify_batch(batch: tuple[DecodeLimits, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    limits, rows = batch
    return [identify(row, process_sandbox(limits).probe) for row in rows]
