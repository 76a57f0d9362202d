"""What `jobs.extract` and `jobs.plan` print."""

from collections import Counter

from pipelines.extraction.ledger import StageCount
from pipelines.extraction.preview import Preview
from pipelines.extraction.run import ExtractReport
from pipelines.store.catalog import FeatureStore
from pipelines.store.findings import listed, listing_findings
from pipelines.store.plan import STATUSES, Plan
from pipelines.store.shards import cut_segments
from pipelines.store.sources import SourceListing

SHOWN = 5
"""How many odd things of a kind a report names."""

_MEANING = {
    "new": "never extracted",
    "changed": "the file's content changed",
    "stale": "extracted with another model, sampling or decoder",
    "partial": "an earlier run stopped half-way",
    "failed_before": "in quarantine; only transient failures are tried again",
    "relabelled": "only text or split changed; rewritten without decoding",
    "staged": "extracted, to be published",
    "done": "up to date",
}


def plan_table(plan: Plan) -> str:
    """Return the counts per encoder and status as a table."""
    encoders = list(plan.counts)
    width = max(len(name) for name in (*encoders, "encoder"))
    lines = [f"  {'':<14}" + "".join(f"{name:>{max(width, 8) + 2}}" for name in encoders)]
    for status in STATUSES:
        numbers = [plan.counts[name][status] for name in encoders]
        if any(numbers):
            lines.append(
                f"  {status:<14}" + "".join(f"{n:>{max(width, 8) + 2}}" for n in numbers) + f"   {_MEANING[status]}"
            )
    return "\n".join(lines)


def preview_report(preview: Preview) -> str:
    """Return the text that `jobs.plan` prints."""
    plan = preview.plan
    lines = [f"plan for {preview.config.store_uri}: {plan.num_videos} videos in the source", plan_table(plan)]
    if preview.tombstoned:
        lines.append(f"  {preview.tombstoned} videos are gone from the source: they become tombstones")
    lines += _source_findings(preview.listing)
    if preview.num_salvaged:
        lines.append(f"  {preview.num_salvaged} damaged or cut videos: the part before the damage is extracted")
    foretold = preview.predicted
    if plan.todo.is_empty():
        lines.append("nothing else to extract" if preview.num_salvaged else "nothing to extract")
    else:
        rough = "unknown" if foretold.seconds is None else f"{_span(foretold.seconds)} on this machine"
        lines.append(
            f"to extract: {foretold.num_videos} videos, {foretold.hours:.2f} h of video, "
            f"{_size(foretold.feature_bytes)} of features, rough time {rough}"
        )
    if preview.num_unread:
        lines.append(
            f"  {preview.num_unread} new files were not opened: "
            "their hours are the mean of those that were; the run itself finds moved files"
        )
    return "\n".join(lines)


def extraction_report(store_uri: str, report: ExtractReport) -> str:
    """Return the text that `jobs.extract` ends with."""
    snapshot, published = report.snapshot, report.published
    lines = [
        f"extraction into {store_uri}",
        f"  snapshot   {snapshot.new} new, {snapshot.changed} changed, {snapshot.renamed} renamed, "
        f"{snapshot.tombstoned} gone, "
        f"{snapshot.unchanged} unchanged, {snapshot.failed} unreadable, {snapshot.rejected} rejected",
    ]
    if report.plan.todo.is_empty():
        lines.append("  extracted  nothing to do: every video is up to date or in quarantine")
    else:
        rate = report.num_frames / max(1e-9, report.extract_s)
        lines.append(
            f"  extracted  {report.num_done} videos, {report.num_frames} frames in {_span(report.extract_s)} "
            f"({rate:.0f} frames/s with start-up), {len(report.failures)} failed"
        )
    kept = (
        f"{video_id}: {_span(kept_s)}" + (f" of {_span(stated_s)}" if stated_s else "")
        for video_id, (kept_s, stated_s) in sorted(report.salvaged.items())
    )
    lines += listed("salvaged", "damaged or cut videos: the part before the damage was extracted", kept, SHOWN)
    reasons = Counter(str(row["reason"]) for row in report.failures)
    lines += [f"    {count} × {reason}" for reason, count in sorted(reasons.items())]
    lines.append(
        f"  published  {published.published} videos as {published.samples} samples in {published.shards} shards "
        f"({published.shard_bytes / 2**20:.1f} MiB); {published.already_published} were published before"
    )
    lines.append(f"  counted    {', '.join(f'{stage} {_sum(count)}' for stage, count in report.counts.items())}")
    if any(published.num_odd.values()):
        constant, repeated, shared = (published.num_odd[f"num_{name}"] for name in ("constant", "repeated", "shared"))
        lines.append(
            f"  odd rows   {constant} constant, {repeated} repeated in their video, {shared} equal to another video's"
        )
    if report.num_retries:
        lines.append(f"  storage    {report.num_retries} calls failed for the moment and were made again")
    lines += _foretold(report)
    quarantined = published.failed
    if quarantined:
        lines.append(
            f"  quarantine {quarantined} videos of the snapshot; the table `failures` says why, "
            "and retry_failed=true tries them again"
        )
    if published.incomplete:
        lines.append(f"  incomplete {published.incomplete} videos: transient failures; the next run tries them again")
    failed = (f"{row['video_id']}: {row['reason']}: {row['message']}" for row in report.failures)
    lines += listed("failed", "videos in this run", failed, SHOWN)
    lines += _source_findings(report.listing)
    if report.listing.annotations:
        odd = cut_segments(FeatureStore.open(store_uri))
        lines += listed("segments", "annotated segments do not lie in their videos", odd, SHOWN)
    lines.append(f"  store version {published.version}, {_span(report.total_s)} in all")
    return "\n".join(lines)


def _sum(count: StageCount) -> str:
    """Return in = out + filtered + failed."""
    return f"{count.num_in} = {count.num_out} + {count.num_filtered} + {count.num_failed}"


def _foretold(report: ExtractReport) -> list[str]:
    """Return what was predicted and what it came to, the ratio behind it."""
    foretold, published = report.predicted, report.published
    if foretold is None:
        return []
    came_to = [
        f"{report.num_done} videos{_ratio(report.num_done, foretold.num_videos)}",
        f"{report.video_s / 3600:.2f} h of video{_ratio(report.video_s / 3600, foretold.hours)}",
        f"{_size(published.shard_bytes)}{_ratio(published.shard_bytes, foretold.feature_bytes)}",
        f"{_span(report.extract_s)}{_ratio(report.extract_s, foretold.seconds)}",
    ]
    time = "no time: too short to tell" if foretold.seconds is None else f"{_span(foretold.seconds)}, by its first part"
    return [
        f"  predicted  {foretold.num_videos} videos, {foretold.hours:.2f} h of video, "
        f"{_size(foretold.feature_bytes)}, {time}",
        f"  came to    {', '.join(came_to)}",
    ]


def _ratio(actual: float, predicted: float | None) -> str:
    return f" (× {actual / predicted:.2f})" if predicted else ""


def _size(num_bytes: int | None) -> str:
    return "unknown bytes" if num_bytes is None else f"{num_bytes / 2**20:.2f} MiB"


def _source_findings(listing: SourceListing) -> list[str]:
    lines = listing_findings(listing, SHOWN)
    if listing.num_collapsed:
        lines.append(f"  equal      {listing.num_collapsed} lines of the list repeat another: counted once")
    if listing.num_merged:
        lines.append(f"  captions   {listing.num_merged} lines of the list give a video one more caption")
    return lines


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
