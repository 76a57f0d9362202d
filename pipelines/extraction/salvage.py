"""Which videos an extraction salvages: those that are in quarantine because they are damaged or cut, and nothing else.

Salvaging is a second, separate extraction of a video, in a layout of its own: its segments never go together with
those that were staged before the damage was met. So what is published depends on the file alone, not on how many
segments or workers there were or when one was killed.
"""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from hvlm.data.splits import SplitConfig
from hvlm.errors import Reason
from pipelines.store.catalog import StoreFrames
from pipelines.store.plan import Plan, make_plan
from pipelines.store.staging import SALVAGED


def held_back(plan: Plan) -> set[str]:
    """Return the ids of the videos that earlier failures keep out of the plan."""
    return set(plan.status.filter((pl.col("status") == "failed_before") & ~pl.col("runs"))["video_id"])


def salvage_todo(
    frames: StoreFrames, candidates: set[str], fingerprints: Mapping[str, str], layout: str, splits: SplitConfig
) -> pl.DataFrame:
    """Return the rows (as `Plan.todo`) of the candidates whose only permanent failures are truncated.

    Args:
        frames: `store.frames()`.
        candidates: ids of videos that have failed.
        fingerprints: encoder name -> fingerprint.
        layout: how videos are cut into segments.
        splits: as in the plan.
    """
    videos = frames.videos.filter(pl.col("video_id").is_in(sorted(candidates)))
    layouts = dict.fromkeys(fingerprints, layout + SALVAGED)
    plan = make_plan(replace(frames, videos=videos), fingerprints, layouts, splits, retry_failed=True)
    ours = pl.col("fingerprint").is_in(["", *fingerprints.values()])
    failed = frames.failures.filter(pl.col("permanent") & ours).group_by("video_id", "content_hash")
    truncated = failed.agg(only=(pl.col("reason") == Reason.TRUNCATED).all()).filter("only")
    return plan.todo.join(truncated, on=["video_id", "content_hash"], how="semi", maintain_order="left")
