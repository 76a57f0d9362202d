"""Shows the videos that failed, and lets them be tried again.

    python -m jobs.quarantine --config jobs/configs/quarantine.yaml store_uri=/data/store

    … action=show filter.video_id='talks/*'
    … action=retry filter.reason=truncated filter.uri='s3://bucket/set-a/*' filter.since=2026-11-21

    … action=discard encoder=clip-1a2b3c4d

list: a line per failure; show: everything known of it; retry: the next extraction tries it again; release: forgets it.
discard: throws away an encoder's staged features, if a publish refuses them; the next extraction makes them anew.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from hvlm.config import Config, require
from jobs.entry import run_job
from pipelines.store.catalog import FeatureStore
from pipelines.store.quarantine import QuarantineFilter, quarantined, settle
from pipelines.store.staging import discard_staged


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineConfig(Config):
    """What to do with which failures.

    Args:
        store_uri: the feature store.
        action: list, show, retry, release or discard.
        filter: which failures; all by default.
        encoder: whose staged features are discarded: its name, or `name-` + the first 8 digits of the fingerprint.
        max_printed: failures that list and show print; all are counted.
    """

    store_uri: str
    action: Literal["list", "show", "retry", "release", "discard"] = "list"
    filter: QuarantineFilter = field(default_factory=QuarantineFilter)
    encoder: str | None = None
    max_printed: int = 50

    def __post_init__(self) -> None:
        require(
            (self.encoder is not None) == (self.action == "discard"),
            what="encoder",
            got=self.encoder,
            expected="a name with action=discard, and only there",
            do="write e.g. action=discard encoder=clip",
        )
        require(
            self.max_printed >= 1,
            what="max_printed",
            got=self.max_printed,
            expected="at least 1",
            do="set e.g. max_printed: 50",
        )


def job(config: QuarantineConfig) -> int:
    """Print or change the quarantine."""
    store = FeatureStore.open(config.store_uri)
    if config.action == "list" or config.action == "show":
        rows = quarantined(store, config.filter)
        print(_totals(store.uri, rows))
        line = _line if config.action == "list" else _details
        for row in rows[: config.max_printed]:
            print(line(row))
        if len(rows) > config.max_printed:
            print(f"and {len(rows) - config.max_printed} more (max_printed={config.max_printed})")
        return 0
    if config.action == "discard":
        with store.writing("jobs.quarantine"):
            gone = discard_staged(store, str(config.encoder))
        videos = gone["video_id"].n_unique()
        print(f"{gone.height} staged segments of {videos} videos discarded; the next extraction makes them again")
        return 0
    with store.writing("jobs.quarantine"):
        rows = quarantined(store, config.filter)
        changed = settle(store, rows, config.action)
    after = "the next extraction tries them again" if config.action == "retry" else "they are forgotten"
    print(f"{changed} of {len(rows)} failures: {after}")
    if config.action == "retry" and changed < len(rows):
        print(f"{len(rows) - changed} are looked at by every extraction anyway")
    return 0


def _totals(uri: str, rows: list[dict[str, Any]]) -> str:
    videos = len({row["video_id"] for row in rows})
    reasons = Counter(row["reason"] for row in rows)
    lines = [f"quarantine  {uri}: {len(rows)} failures of {videos} videos"]
    return "\n".join(lines + [f"            {count} × {reason}" for reason, count in reasons.most_common()])


def _line(row: dict[str, Any]) -> str:
    kind = "permanent" if row["permanent"] else "is tried again"
    first = row["message"].splitlines()[0] if row["message"] else ""
    return f"{row['video_id']}  {row['reason']} ({kind}, {row['attempts']}×, {_moment(row['at_s'])})  {first[:160]}"


def _details(row: dict[str, Any]) -> str:
    shown = {
        "uri": row["uri"],
        "stage": f"{row['stage']} {row['encoder']} {row['fingerprint']}".strip(),
        "reason": f"{row['reason']}, {'permanent' if row['permanent'] else 'is tried again'}",
        "attempts": row["attempts"],
        "first seen": _moment(row["first_s"]),
        "last seen": _moment(row["at_s"]),
        "decoder": row["decoder"] or "-",
        "run": row["run_id"],
        "content": row["content_hash"],
        "message": row["message"],
    }
    return "\n".join([row["video_id"], *(f"  {name:<10}  {value}" for name, value in shown.items())])


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(" ", "seconds")


if __name__ == "__main__":
    run_job("quarantine", __doc__, QuarantineConfig, job)
