"""Lists of what a job found odd, as lines for its report: a count, the first few, and how many more there are."""

from collections.abc import Iterable

from pipelines.store.sources import SourceListing


def listed(name: str, what: str, items: Iterable[str], limit: int) -> list[str]:
    """Return `name  N what:` and up to `limit` items below it; nothing for no items."""
    found = list(items)
    if not found:
        return []
    shown = [f"             {item}" for item in found[:limit]]
    more = [f"             and {len(found) - limit} more"] if len(found) > limit else []
    return [f"  {name:<10} {len(found)} {what}:", *shown, *more]


def listing_findings(listing: SourceListing, limit: int) -> list[str]:
    """Return what is odd about a source: rejected entries, ids that do not meet, impossible annotation segments."""
    rejected = (f"{row['video_id']} ({row['uri']}): {row['reason']}: {row['message']}" for row in listing.rejected)
    lines = listed("rejected", "entries of the source were not taken", rejected, limit)
    if listing.reconciliation:
        without = listing.reconciliation
        lines += listed("unlabelled", "videos have no annotation", without.without_annotation, limit)
        lines += listed("missing", "annotated videos are not in the source", without.without_video, limit)
    problems = listing.annotations.problems if listing.annotations else []
    return lines + listed(
        "annotation", "impossible rows", (f"{video}: {problem}" for video, problem in problems), limit
    )
