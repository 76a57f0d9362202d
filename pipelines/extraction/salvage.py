"""Which videos an extraction salvages: those that an encoder found damaged or cut, and that nothing else holds back.

Salvaging is a second, separate extraction of a video, in a layout of its own: its segments never go together with those
that were staged before the damage was met. All encoders of a damaged video are salvaged, also those that want no lost
frame, whenever they are added: so the features of one video end at the same moment, which depends on the file alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from hvlm.data.splits import SplitConfig
from hvlm.errors import Reason
from pipelines.store.catalog import FeatureStore, StoreFrames
from pipelines.store.liveness import is_source
from pipelines.store.plan import Plan, make_plan
from pipelines.store.publish import mark
from pipelines.store.staging import SALVAGED, remove_tars

_CONTENT = ["video_id", "content_hash"]


def held_back(plan: Plan) -> set[str]:
    """Return the ids of the videos that earlier failures keep out of the plan."""
    return set(plan.status.filter((pl.col("status") == "failed_before") & ~pl.col("runs"))["video_id"])


def damaged(failures: pl.DataFrame, fingerprints: Mapping[str, str]) -> pl.DataFrame:
    """Return video_id, content_hash of what is damaged or cut, by any encoder's finding, and has no other failure.

    Args:
        failures: `store.failures()`.
        fingerprints: encoder name -> fingerprint, of those whose other failures count.
    """
    truncated = pl.col("reason") == Reason.TRUNCATED
    ours = pl.col("fingerprint").is_in(["", *fingerprints.values()])
    failed = failures.filter(pl.col("permanent") & (truncated | ours)).group_by(_CONTENT)
    return failed.agg(only=truncated.all()).filter("only").select(_CONTENT)


def salvage_todo(
    frames: StoreFrames, fingerprints: Mapping[str, str], layout: str, splits: SplitConfig
) -> pl.DataFrame:
    """Return the rows (as `Plan.todo`) of the damaged videos, with the encoders that are not salvaged yet.

    Args:
        frames: `store.frames()`.
        fingerprints: encoder name -> fingerprint.
        layout: how videos are cut into segments.
        splits: as in the plan.
    """
    videos = frames.videos.join(damaged(frames.failures, fingerprints), on=_CONTENT, how="semi")
    staged = frames.staged.filter(pl.col("layout").str.ends_with(SALVAGED))
    layouts = dict.fromkeys(fingerprints, layout + SALVAGED)
    return make_plan(replace(frames, videos=videos, staged=staged), fingerprints, layouts, splits, True).todo


def drop_whole_staged(store: FeatureStore, todo: pl.DataFrame) -> None:
    """Drop what was staged, of videos that are salvaged now, before the damage was met."""
    staged = store.staged()
    whole = staged.filter(~pl.col("layout").str.ends_with(SALVAGED)).join(todo, on=_CONTENT, how="semi")
    if not whole.is_empty():
        kept = staged.join(whole, on=staged.columns, how="anti", nulls_equal=True)
        store.replace_staged(kept)
        remove_tars(store, set(whole["tar"]) - set(kept["tar"]))


def retire_whole(store: FeatureStore, fingerprints: Mapping[str, str]) -> bool:
    """End the published samples that are longer than the salvaged part of their video; return whether there are any.

    They are of encoders that met no damage before another did. Their videos are published again with all encoders.
    """
    salvaged = store.staged().filter(pl.col("layout").str.ends_with(SALVAGED))
    if salvaged.is_empty():
        return False
    version = store.samples_version()
    samples = store.samples(version)
    kept = salvaged.select("content_hash", kept_s="duration_s").unique("content_hash")
    published = samples.filter(is_source(samples) & pl.col("fingerprint").is_in(list(fingerprints.values())))
    whole = published.join(kept, on="content_hash").filter(pl.col("duration_s") != pl.col("kept_s")).drop("kept_s")
    number = int(samples.select(pl.col("commit").max().fill_null(0)).item()) + 1
    rows = [row | {"commit": number, "state": "damaged"} for row in whole.to_dicts()]
    rows += [mark(number, "tombstone", video_id=video_id) for video_id in whole["video_id"].unique().sort()]
    store.commit_samples(pl.DataFrame(rows, schema=samples.schema), version)
    return bool(rows)
