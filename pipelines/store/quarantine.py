"""The quarantine: the failures that keep videos out of the store, and the two ways out of it.

- retry: the next extraction tries the video again; the failure and its count of attempts stay.
- release: the failure is forgotten; the video is as new.

Both are rows of the append-only failures table like any other: what was known before can still be read. A list's
rejected lines (duplicate ids, bad names) and files that could not be read are looked at by every extraction anyway.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

import polars as pl

from hvlm.config import Config, require
from hvlm.errors import Reason, UserError
from pipelines.store.catalog import FeatureStore
from pipelines.store.liveness import live_samples
from pipelines.store.schema import FAILURES


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineFilter(Config):
    """Which failures; without any value all of them.

    Args:
        reason: e.g. truncated.
        video_id: a pattern as of file names: talks/*.
        uri: a pattern: s3://bucket/set-a/* (one dataset of several in a source).
        since: ISO date or time (UTC unless it says otherwise) of the last attempt, included; until: excluded.
    """

    reason: str | None = None
    video_id: str | None = None
    uri: str | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        reasons = [str(reason) for reason in Reason]
        require(
            self.reason is None or self.reason in reasons,
            what="filter.reason",
            got=self.reason,
            expected=f"one of {', '.join(reasons)}",
            do="correct it",
        )
        for name in ("since", "until"):
            _unix(f"filter.{name}", getattr(self, name))

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a failure is one of these."""
        since, until = _unix("filter.since", self.since), _unix("filter.until", self.until)
        return (
            (self.reason is None or row["reason"] == self.reason)
            and (self.video_id is None or fnmatchcase(row["video_id"], self.video_id))
            and (self.uri is None or fnmatchcase(row["uri"], self.uri))
            and (since is None or row["at_s"] >= since)
            and (until is None or row["at_s"] < until)
        )


def quarantined(store: FeatureStore, wanted: QuarantineFilter) -> list[dict[str, Any]]:
    """Return the failures that count today, by video and stage: the newest row of each.

    Besides the columns of the table a row has `first_s`, when it was first seen (Unix time). Not among them: what was
    released, what a later attempt overcame, and failures of a content that is not there any more.
    """
    failures = store.failures(first_seen=True).filter(pl.col("permanent").is_not_null())
    videos = store.videos(["video_id", "content_hash"]).rename({"content_hash": "now"})
    live = live_samples(store.samples()).select("video_id", "content_hash", "encoder", "fingerprint")
    rows = failures.join(videos, on="video_id", how="left")
    rows = rows.filter((pl.col("content_hash") == "") | (pl.col("content_hash") == pl.col("now"))).drop("now")
    rows = rows.join(live, on=["video_id", "content_hash", "encoder", "fingerprint"], how="anti")
    # A failure of "any encoder" is overcome by features of one; a file that is published could be read after all.
    anything = live.select("video_id", "content_hash").unique().with_columns(encoder=pl.lit(""))
    rows = rows.join(anything, on=["video_id", "content_hash", "encoder"], how="anti")
    # Of a file that could not even be hashed nothing but the id is known.
    unhashed = (pl.col("stage") == "identify") & (pl.col("content_hash") == "")
    rows = rows.filter(~(unhashed & pl.col("video_id").is_in(live["video_id"].implode())))
    return [row for row in rows.sort("video_id", "stage", "encoder").to_dicts() if wanted.matches(row)]


def settle(store: FeatureStore, rows: list[dict[str, Any]], how: Literal["retry", "release"]) -> int:
    """Retry or release failures (of `quarantined`) and return how many of them needed it."""
    changes: dict[str, Any] = {"permanent": None, "attempts": 0} if how == "release" else {"permanent": False}
    held = [row for row in rows if how == "release" or (row["permanent"] and row["content_hash"] != "")]
    store.append_failures([{name: row[name] for name in FAILURES} | changes | {"at_s": time.time()} for row in held])
    return len(held)


def _unix(what: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            what=what, got=text, expected="an ISO date or time", do="write e.g. 2026-11-21 or 2026-11-21T08:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
